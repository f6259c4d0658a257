// Quantisers of the K types: blocks of 256 with scales of their own for every 32 (Q4_K, Q5_K) or
// 16 (Q6_K) elements, those scales being small integers times one f16 of the block.
//
// The format is ggml's, the search is not: a few starting steps, each followed by the least-squares
// scale (and minimum) for the integers it gives, and the pair with the least squared error wins.
// ggml weighs its error by |x|; the two come out with like errors (tests/model/quant_test.cc).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/base/check.h"
#include "engine/model/quant_block.h"
#include "engine/model/quantize.h"

namespace tandem {
namespace {

// To the nearest integer, ties to even, within [low, high]; NaN gives low. Adding 1.5 * 2^23 leaves
// no bits below one, so the addition itself rounds; a compiler makes vector code of it.
float RoundWithin(float value, float low, float high) {
  value = value > low ? value : low;
  value = value < high ? value : high;
  return (value + 0x1.8p23f) - 0x1.8p23f;
}

int Round(float value, int low, int high) {
  return static_cast<int>(RoundWithin(value, static_cast<float>(low), static_cast<float>(high)));
}

// Sums over a run for the integers q = round((x + shift) * inverse), eight chains side by side.
struct Moments {
  float q = 0.0f;
  float qq = 0.0f;
  float xq = 0.0f;
};

Moments MomentsOf(const float* x, uint32_t n, float shift, float inverse, float low, float high) {
  float q[8] = {};
  float qq[8] = {};
  float xq[8] = {};
  for (uint32_t i = 0; i < n; i += 8) {
    for (uint32_t k = 0; k < 8; ++k) {
      const float value = RoundWithin((x[i + k] + shift) * inverse, low, high);
      q[k] += value;
      qq[k] += value * value;
      xq[k] += x[i + k] * value;
    }
  }
  Moments sums;
  for (uint32_t k = 0; k < 8; ++k) {
    sums.q += q[k];
    sums.qq += qq[k];
    sums.xq += xq[k];
  }
  return sums;
}

float PutF16(float value, std::byte* at) {
  const uint16_t bits = F32ToF16(value);
  std::memcpy(at, &bits, sizeof(bits));
  return F16ToF32(bits);
}

// x ~ scale * q, q in [-32, 31].  x (16)
float FitScale(const float* x) {
  float extreme = 0.0f;
  for (uint32_t i = 0; i < kRun; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  float best = 0.0f;
  float best_gain = 0.0f;  // of squared error, against a scale of zero
  for (int step = -4; step <= 4; ++step) {
    const float inverse = Inverse(extreme) * (-32.0f + 0.25f * static_cast<float>(step));
    const Moments sums = MomentsOf(x, kRun, 0.0f, inverse, -32.0f, 31.0f);
    if (sums.qq > 0.0f && sums.xq * sums.xq > best_gain * sums.qq) {
      best_gain = sums.xq * sums.xq / sums.qq;
      best = sums.xq / sums.qq;
    }
  }
  return best;
}

void QuantizeQ6K(const float* x, std::byte* block) {
  float scales[kMaxRuns];
  float extreme = 0.0f;
  for (uint32_t run = 0; run < kMaxRuns; ++run) {
    scales[run] = FitScale(x + run * kRun);
    if (std::fabs(scales[run]) > std::fabs(extreme)) extreme = scales[run];
  }
  const float d = PutF16(extreme / -128.0f, block + 208);
  const float inverse = Inverse(d);
  int8_t q[kMaxBlockElems];
  for (uint32_t run = 0; run < kMaxRuns; ++run) {
    const int scale = Round(scales[run] * inverse, -128, 127);
    block[192 + run] = static_cast<std::byte>(scale);
    const float fine = Inverse(d * static_cast<float>(scale));
    for (uint32_t i = run * kRun; i < (run + 1) * kRun; ++i) {
      q[i] = static_cast<int8_t>(Round(x[i] * fine, -32, 31));
    }
  }
  WriteCodes(DType::kQ6_K, q, block);
}

// x ~ scale * q - minimum, q in [0, top], scale and minimum not negative.
struct Line {
  float scale = 0.0f;
  float minimum = 0.0f;
  float error = 0.0f;
};

// Sums over a sub-block's values.
struct Totals {
  float x = 0.0f;
  float xx = 0.0f;
};

// The least-squares line for the integers that `line` gives, with its error.  x (32)
Line Refit(const float* x, const Totals& totals, const Line& line, int top) {
  const Moments sums =
      MomentsOf(x, 2 * kRun, line.minimum, Inverse(line.scale), 0.0f, static_cast<float>(top));
  const float n = 2 * kRun;
  const float determinant = n * sums.qq - sums.q * sums.q;
  Line fit;
  if (determinant > 0.0f) {
    fit.scale = (n * sums.xq - sums.q * totals.x) / determinant;
    fit.minimum = (sums.q * sums.xq - sums.qq * totals.x) / determinant;
  }
  if (!(fit.minimum > 0.0f) || !(fit.scale > 0.0f)) {
    // One of the two is zero: integers that are all zero leave the minimum, others the scale.
    fit.minimum = sums.qq > 0.0f ? 0.0f : std::max(0.0f, -totals.x / n);
    fit.scale = sums.xq > 0.0f ? sums.xq / sums.qq : 0.0f;
  }
  const float s = fit.scale;
  const float m = fit.minimum;
  fit.error = totals.xx + s * s * sums.qq + n * m * m - 2 * s * sums.xq + 2 * m * totals.x -
              2 * s * m * sums.q;
  return fit;
}

Line FitLine(const float* x, int top) {
  Totals totals;
  float low = 0.0f;
  float high = -INFINITY;
  for (uint32_t i = 0; i < 2 * kRun; ++i) {
    totals.x += x[i];
    totals.xx += x[i] * x[i];
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  const float range = std::max(high, low) - low;
  Line best;
  best.error = INFINITY;
  for (int step = -2; step <= 2; ++step) {
    Line line;
    line.scale = range / (static_cast<float>(top) + 0.5f * static_cast<float>(step));
    line.minimum = -low;
    for (int round = 0; round < 2; ++round) {
      line = Refit(x, totals, line, top);
      if (line.error < best.error) best = line;
    }
  }
  return best;
}

// Q4_K and Q5_K.
void QuantizeLines(DType type, int top, const float* x, std::byte* block) {
  Line lines[kKSubBlocks];
  float scale = 0.0f;
  float minimum = 0.0f;
  for (uint32_t sub = 0; sub < kKSubBlocks; ++sub) {
    lines[sub] = FitLine(x + sub * 2 * kRun, top);
    scale = std::max(scale, lines[sub].scale);
    minimum = std::max(minimum, lines[sub].minimum);
  }
  const float d = PutF16(scale / 63.0f, block);
  const float dmin = PutF16(minimum / 63.0f, block + 2);
  const float inverse_d = Inverse(d);
  const float inverse_dmin = Inverse(dmin);
  uint8_t scales[kKSubBlocks];
  uint8_t minima[kKSubBlocks];
  int8_t q[kMaxBlockElems];
  for (uint32_t sub = 0; sub < kKSubBlocks; ++sub) {
    scales[sub] = static_cast<uint8_t>(Round(lines[sub].scale * inverse_d, 0, 63));
    minima[sub] = static_cast<uint8_t>(Round(lines[sub].minimum * inverse_dmin, 0, 63));
    const float fine = Inverse(d * static_cast<float>(scales[sub]));
    const float shift = dmin * static_cast<float>(minima[sub]);
    for (uint32_t i = sub * 2 * kRun; i < (sub + 1) * 2 * kRun; ++i) {
      q[i] = static_cast<int8_t>(Round((x[i] + shift) * fine, 0, top));
    }
  }
  PackKScales(scales, minima, block + 4);
  WriteCodes(type, q, block);
}

}  // namespace

void QuantizeKBlock(DType type, const float* x, std::byte* block) {
  switch (type) {
    case DType::kQ4_K:
      return QuantizeLines(type, 15, x, block);
    case DType::kQ5_K:
      return QuantizeLines(type, 31, x, block);
    case DType::kQ6_K:
      return QuantizeQ6K(x, block);
    default:
      Check(false, "dtype: not a K type");
  }
}

}  // namespace tandem
