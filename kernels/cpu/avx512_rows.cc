// Row kernels of the AVX-512 tiers: quantising and rounding activations, RMS norm, elementwise ops,
// rotation, f16. Elements past the last whole vector are done in one more, masked, vector: the same
// arithmetic.
#include "kernels/cpu/avx512_inline.h"
#include "kernels/int8_block.h"

namespace tandem::cpu::avx512 {

void Quantize(const float* x, uint64_t blocks, PreparedBlock* out) {
  const __m512 infinity = _mm512_set1_ps(__builtin_inff());
  for (uint64_t b = 0; b < blocks; ++b, x += kInt8Block) {
    const __m512 low = _mm512_loadu_ps(x);
    const __m512 high = _mm512_loadu_ps(x + kLanes);
    const __m512 low_size = _mm512_abs_ps(low);
    const __m512 high_size = _mm512_abs_ps(high);
    const float absmax = MaxLanes(_mm512_max_ps(low_size, high_size));
    const bool finite = (_mm512_cmp_ps_mask(low_size, infinity, _CMP_LT_OQ) &
                         _mm512_cmp_ps_mask(high_size, infinity, _CMP_LT_OQ)) == 0xffff;
    PreparedBlock& block = out[b];
    if (!finite || absmax < kInt8Tiny) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(block.q), _mm256_setzero_si256());
      block.sum = block.half_sum = 0;
      block.scale = block.scaled_sum = finite ? 0.0f : __builtin_nanf("");
      continue;
    }
    const __m512 inverse = _mm512_set1_ps(127.0f / absmax);
    const __m512i q_low = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
    const __m512i q_high = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
    auto* q = reinterpret_cast<__m128i*>(block.q);
    _mm_storeu_si128(q, _mm512_cvtepi32_epi8(q_low));
    _mm_storeu_si128(q + 1, _mm512_cvtepi32_epi8(q_high));
    // At most 32 * 127 in magnitude: exact in f32 in any order.
    const auto sum =
        static_cast<int32_t>(SumLanes(_mm512_cvtepi32_ps(_mm512_add_epi32(q_low, q_high))));
    block.scale = absmax / 127.0f;
    block.sum = sum;
    block.half_sum = static_cast<int32_t>(SumLanes(_mm512_cvtepi32_ps(q_low)));
    block.scaled_sum = block.scale * static_cast<float>(sum);
  }
}

void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden, float* y) {
  for (uint64_t t = 0; t < n; ++t, x += hidden, y += hidden) {
    __m512 chains[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
                        _mm512_setzero_ps()};
    uint64_t i = 0;
    for (; i + 4 * kLanes <= hidden; i += 4 * kLanes) {
      for (uint64_t c = 0; c < 4; ++c) {
        const __m512 v = _mm512_loadu_ps(x + i + c * kLanes);
        chains[c] = _mm512_fmadd_ps(v, v, chains[c]);
      }
    }
    ForEachVector(hidden - i, [&](uint64_t j, auto lanes) {
      const __m512 v = lanes.Load(x + i + j);
      chains[0] = _mm512_fmadd_ps(v, v, chains[0]);
    });
    const float squares = SumLanes(
        _mm512_add_ps(_mm512_add_ps(chains[0], chains[1]), _mm512_add_ps(chains[2], chains[3])));
    const __m512 scale =
        _mm512_set1_ps(1.0f / __builtin_sqrtf(squares / static_cast<float>(hidden) + eps));
    ForEachVector(hidden, [&](uint64_t j, auto lanes) {
      const __m512 scaled = _mm512_mul_ps(lanes.Load(x + j), scale);
      lanes.Store(y + j, _mm512_mul_ps(scaled, lanes.Load(w + j)));
    });
  }
}

void Add(const float* x, const float* y, uint64_t n, float* out) {
  ForEachVector(n, [&](uint64_t i, auto lanes) {
    lanes.Store(out + i, _mm512_add_ps(lanes.Load(x + i), lanes.Load(y + i)));
  });
}

void SwiGlu(const float* gate, const float* up, uint64_t n, float* out) {
  const __m512 one = _mm512_set1_ps(1.0f);
  ForEachVector(n, [&](uint64_t i, auto lanes) {
    const __m512 g = lanes.Load(gate + i);
    const __m512 e = Exp(_mm512_sub_ps(_mm512_setzero_ps(), g));
    const __m512 silu = _mm512_div_ps(g, _mm512_add_ps(one, e));
    lanes.Store(out + i, _mm512_mul_ps(silu, lanes.Load(up + i)));
  });
}

// Both pairings compute a*cos - b*sin and b*cos + a*sin with the products rounded alike, so vectors
// and the scalar rest agree.
void Rotate(const RotateJob& job) {
  const uint32_t half = job.rope_dim / 2;
  const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  for (uint32_t h = 0; h < job.n_heads; ++h) {
    float* head = job.heads + uint64_t{h} * job.head_dim;
    uint32_t i = 0;
    if (job.interleaved) {
      for (; i + 8 <= half; i += 8) {
        const __m512 v = _mm512_loadu_ps(head + 2 * i);
        const __m512 c8 = _mm512_castps256_ps512(_mm256_loadu_ps(job.cosines + i));
        const __m512 s8 = _mm512_castps256_ps512(_mm256_loadu_ps(job.sines + i));
        const __m512 straight = _mm512_mul_ps(v, _mm512_permutexvar_ps(twice, c8));
        const __m512 crossed =
            _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), _mm512_permutexvar_ps(twice, s8));
        const __m512 sum = _mm512_add_ps(straight, crossed);
        _mm512_storeu_ps(head + 2 * i, _mm512_mask_sub_ps(sum, 0x5555, straight, crossed));
      }
    } else {
      for (; i + kLanes <= half; i += kLanes) {
        const __m512 a = _mm512_loadu_ps(head + i);
        const __m512 b = _mm512_loadu_ps(head + half + i);
        const __m512 c = _mm512_loadu_ps(job.cosines + i);
        const __m512 s = _mm512_loadu_ps(job.sines + i);
        _mm512_storeu_ps(head + i, _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)));
        _mm512_storeu_ps(head + half + i, _mm512_add_ps(_mm512_mul_ps(b, c), _mm512_mul_ps(a, s)));
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
  uint64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                        _mm512_cvtps_ph(_mm512_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
  }
  if (i < n) {
    const __mmask16 rest = Lanes(0, n - i);
    const __m512 v = _mm512_maskz_loadu_ps(rest, x + i);
    _mm256_mask_storeu_epi16(out + i, rest, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
}

}  // namespace tandem::cpu::avx512
