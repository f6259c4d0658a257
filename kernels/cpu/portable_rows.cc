// Row kernels of the portable tier: quantising activations, RMS norm, elementwise ops, rotation.
#include <cmath>
#include <cstring>

#include "kernels/cpu/portable.h"
#include "kernels/int8_block.h"

namespace tandem::cpu::portable {

// exp(x) = 2^k * exp(r), k = round(x / ln 2), |r| <= ln(2)/2: a degree-6 Taylor polynomial of r
// errs by 1e-8 relative there. ln 2 in two parts keeps r exact.
float Exp(float x) {
  if (std::isnan(x)) return x;  // has no integer part below
  if (x < -87.3f) return 0.0f;
  if (x > 88.0f) x = 88.0f;
  const float k = std::nearbyint(x * 1.44269504f);
  const float r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  float p = 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const auto bits = static_cast<uint32_t>(static_cast<int32_t>(k) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return std::isnan(x) ? x : p * power;
}

void Quantize(const float* x, uint64_t blocks, PreparedBlock* out) {
  for (uint64_t b = 0; b < blocks; ++b, x += kInt8Block) {
    float absmax = 0.0f;
    bool finite = true;
    for (uint64_t i = 0; i < kInt8Block; ++i) {
      const float a = std::fabs(x[i]);
      finite = finite && std::isfinite(a);
      absmax = a > absmax ? a : absmax;
    }
    PreparedBlock& block = out[b];
    std::memset(&block, 0, sizeof(block));
    if (!finite) {
      block.scale = block.scaled_sum = NAN;
    } else if (absmax >= kInt8Tiny) {
      const float inverse = 127.0f / absmax;
      int32_t sum = 0;
      for (uint64_t i = 0; i < kInt8Block; ++i) {
        const auto q = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
        block.q[i] = q;
        sum += q;
        if (i < kInt8Block / 2) block.half_sum += q;
      }
      block.scale = absmax / 127.0f;
      block.sum = sum;
      block.scaled_sum = block.scale * static_cast<float>(sum);
    }
  }
}

void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden, float* y) {
  for (uint64_t t = 0; t < n; ++t, x += hidden, y += hidden) {
    float lanes[kLanes] = {};
    uint64_t i = 0;
    for (; i + kLanes <= hidden; i += kLanes) {
      for (uint32_t l = 0; l < kLanes; ++l) lanes[l] += x[i + l] * x[i + l];
    }
    float squares = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
                    ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    for (; i < hidden; ++i) squares += x[i] * x[i];
    const float scale = 1.0f / std::sqrt(squares / static_cast<float>(hidden) + eps);
    for (i = 0; i < hidden; ++i) y[i] = x[i] * scale * w[i];
  }
}

void Add(const float* x, const float* y, uint64_t n, float* out) {
  for (uint64_t i = 0; i < n; ++i) out[i] = x[i] + y[i];
}

void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) {
  for (uint64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.0f + Exp(-gate[i])) * up[i];
}

void Rotate(const RotateJob& job) {
  const uint32_t half = job.rope_dim / 2;
  for (uint32_t h = 0; h < job.n_heads; ++h) {
    float* head = job.heads + uint64_t{h} * job.head_dim;
    for (uint32_t i = 0; i < half; ++i) {
      float& a = head[job.interleaved ? 2 * i : i];
      float& b = head[job.interleaved ? 2 * i + 1 : i + half];
      const float rotated = a * job.cosines[i] - b * job.sines[i];
      b = a * job.sines[i] + b * job.cosines[i];
      a = rotated;
    }
  }
}

void ToF16(const float* x, uint64_t n, uint16_t* out) {
  for (uint64_t i = 0; i < n; ++i) out[i] = F32ToF16(x[i]);
}

}  // namespace tandem::cpu::portable
