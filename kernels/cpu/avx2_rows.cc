// Row kernels of the AVX2 tier: quantising activations, RMS norm, elementwise ops, rotation, f16.
// Elements past the last whole vector are done in one more, masked, vector: the same arithmetic.
#include "kernels/cpu/avx2_inline.h"
#include "kernels/int8_block.h"

namespace tandem::cpu::avx2 {
namespace {

// 8 x int32 of four vectors as 32 x int8, in order.
[[gnu::always_inline]] inline __m256i PackBytes(const __m256i* q) {
  const __m256i low = _mm256_packs_epi32(q[0], q[1]);
  const __m256i high = _mm256_packs_epi32(q[2], q[3]);
  // Packing works within 128-bit halves: the dwords come out as 0 2 4 6 1 3 5 7.
  return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high),
                                     _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

}  // namespace

void Quantize(const float* x, uint64_t blocks, PreparedBlock* out) {
  const __m256 infinity = _mm256_set1_ps(__builtin_inff());
  const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  for (uint64_t b = 0; b < blocks; ++b, x += kInt8Block) {
    __m256 v[4];
    __m256 top = _mm256_setzero_ps();
    __m256 finite = _mm256_cmp_ps(top, top, _CMP_EQ_OQ);
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm256_loadu_ps(x + 8 * i);
      const __m256 magnitude = _mm256_and_ps(v[i], no_sign);
      finite = _mm256_and_ps(finite, _mm256_cmp_ps(magnitude, infinity, _CMP_LT_OQ));
      top = _mm256_max_ps(top, magnitude);
    }
    const float absmax = MaxLanes(top);
    const bool all_finite = _mm256_movemask_ps(finite) == 0xff;
    PreparedBlock& block = out[b];
    block.half_sum = 0;
    if (!all_finite || absmax < kInt8Tiny) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(block.q), _mm256_setzero_si256());
      block.sum = 0;
      block.scale = block.scaled_sum = all_finite ? 0.0f : __builtin_nanf("");
      continue;
    }
    const __m256 inverse = _mm256_set1_ps(127.0f / absmax);
    __m256i q[4];
    for (int i = 0; i < 4; ++i) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
    const __m256i half = _mm256_add_epi32(q[0], q[1]);
    const __m256i sums = _mm256_add_epi32(half, _mm256_add_epi32(q[2], q[3]));
    // At most 32 * 127 in magnitude: exact in f32 in any order.
    const auto sum = static_cast<int32_t>(SumLanes(_mm256_cvtepi32_ps(sums)));
    block.half_sum = static_cast<int32_t>(SumLanes(_mm256_cvtepi32_ps(half)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(block.q), PackBytes(q));
    block.scale = absmax / 127.0f;
    block.sum = sum;
    block.scaled_sum = block.scale * static_cast<float>(sum);
  }
}

void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden, float* y) {
  for (uint64_t t = 0; t < n; ++t, x += hidden, y += hidden) {
    __m256 chains[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                        _mm256_setzero_ps()};
    uint64_t i = 0;
    for (; i + 4 * kLanes <= hidden; i += 4 * kLanes) {
      for (uint64_t c = 0; c < 4; ++c) {
        const __m256 v = _mm256_loadu_ps(x + i + c * kLanes);
        chains[c] = _mm256_fmadd_ps(v, v, chains[c]);
      }
    }
    ForEachVector(hidden - i, [&](uint64_t j, auto lanes) {
      const __m256 v = lanes.Load(x + i + j);
      chains[0] = _mm256_fmadd_ps(v, v, chains[0]);
    });
    const float squares = SumLanes(
        _mm256_add_ps(_mm256_add_ps(chains[0], chains[1]), _mm256_add_ps(chains[2], chains[3])));
    const __m256 scale =
        _mm256_set1_ps(1.0f / __builtin_sqrtf(squares / static_cast<float>(hidden) + eps));
    ForEachVector(hidden, [&](uint64_t j, auto lanes) {
      const __m256 scaled = _mm256_mul_ps(lanes.Load(x + j), scale);
      lanes.Store(y + j, _mm256_mul_ps(scaled, lanes.Load(w + j)));
    });
  }
}

void Add(const float* x, const float* y, uint64_t n, float* out) {
  ForEachVector(n, [&](uint64_t i, auto lanes) {
    lanes.Store(out + i, _mm256_add_ps(lanes.Load(x + i), lanes.Load(y + i)));
  });
}

void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) {
  const __m256 one = _mm256_set1_ps(1.0f);
  ForEachVector(n, [&](uint64_t i, auto lanes) {
    const __m256 g = lanes.Load(gate + i);
    const __m256 e = Exp(_mm256_sub_ps(_mm256_setzero_ps(), g));
    const __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, e));
    lanes.Store(out + i, _mm256_mul_ps(silu, lanes.Load(up + i)));
  });
}

// Both pairings compute a*cos - b*sin and b*cos + a*sin with the products rounded alike, so vectors
// and the scalar rest agree.
void Rotate(const RotateJob& job) {
  const uint32_t half = job.rope_dim / 2;
  for (uint32_t h = 0; h < job.n_heads; ++h) {
    float* head = job.heads + uint64_t{h} * job.head_dim;
    uint32_t i = 0;
    if (job.interleaved) {
      for (; i + 4 <= half; i += 4) {
        const __m256 v = _mm256_loadu_ps(head + 2 * i);
        const __m128 c4 = _mm_loadu_ps(job.cosines + i);
        const __m128 s4 = _mm_loadu_ps(job.sines + i);
        const __m256 c = _mm256_set_m128(_mm_unpackhi_ps(c4, c4), _mm_unpacklo_ps(c4, c4));
        const __m256 s = _mm256_set_m128(_mm_unpackhi_ps(s4, s4), _mm_unpacklo_ps(s4, s4));
        const __m256 swapped = _mm256_permute_ps(v, 0xb1);
        _mm256_storeu_ps(head + 2 * i,
                         _mm256_addsub_ps(_mm256_mul_ps(v, c), _mm256_mul_ps(swapped, s)));
      }
    } else {
      for (; i + kLanes <= half; i += kLanes) {
        const __m256 a = _mm256_loadu_ps(head + i);
        const __m256 b = _mm256_loadu_ps(head + half + i);
        const __m256 c = _mm256_loadu_ps(job.cosines + i);
        const __m256 s = _mm256_loadu_ps(job.sines + i);
        _mm256_storeu_ps(head + i, _mm256_sub_ps(_mm256_mul_ps(a, c), _mm256_mul_ps(b, s)));
        _mm256_storeu_ps(head + half + i, _mm256_add_ps(_mm256_mul_ps(b, c), _mm256_mul_ps(a, s)));
      }
    }
    for (; i < half; ++i) {
      float& a = head[job.interleaved ? 2 * i : i];
      float& b = head[job.interleaved ? 2 * i + 1 : i + half];
      const float rotated = a * job.cosines[i] - b * job.sines[i];
      b = b * job.cosines[i] + a * job.sines[i];
      a = rotated;
    }
  }
}

void ToF16(const float* x, uint64_t n, uint16_t* out) {
  ForEachVector(n, [&](uint64_t i, auto lanes) {
    const __m128i bits = _mm256_cvtps_ph(lanes.Load(x + i), _MM_FROUND_TO_NEAREST_INT);
    if (i + kLanes <= n) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), bits);
    } else {
      uint16_t rest[kLanes];
      _mm_storeu_si128(reinterpret_cast<__m128i*>(rest), bits);
      for (uint64_t j = i; j < n; ++j) out[j] = rest[j - i];
    }
  });
}

}  // namespace tandem::cpu::avx2
