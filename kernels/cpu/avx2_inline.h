// Vector helpers of the AVX2 tier. Internal linkage on purpose: the linker must never hand code
// with AVX2 instructions to a file of another tier.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/tier_panels.h"

namespace tandem::cpu::avx2 {
namespace {

[[gnu::always_inline]] inline __m256 LoadHalves(const void* at) {
  return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(at)));
}

// Four bytes from `at` in every 32-bit lane.
[[gnu::always_inline]] inline __m256i BroadcastDword(const int8_t* at) {
  int32_t dword;
  __builtin_memcpy(&dword, at, sizeof(dword));
  return _mm256_set1_epi32(dword);
}

// ((0+4)+(2+6)) + ((1+5)+(3+7))
[[gnu::always_inline]] inline float SumLanes(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

[[gnu::always_inline]] inline float MaxLanes(__m256 v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// exp(x) = 2^k * exp(r), k = round(x / ln 2), |r| <= ln(2)/2, exp(r) by its Taylor polynomial of
// degree 6 (1e-8 relative there). 0 below -87.3, finite above 88, NaN for NaN.
[[gnu::always_inline]] inline __m256 Exp(__m256 x) {
  const __m256 low = _mm256_cmp_ps(x, _mm256_set1_ps(-87.3f), _CMP_LT_OQ);
  // min and max return their second operand when one is NaN: it must be x.
  const __m256 clamped =
      _mm256_max_ps(_mm256_set1_ps(-87.3f), _mm256_min_ps(_mm256_set1_ps(88.0f), x));
  const __m256 k = _mm256_round_ps(_mm256_mul_ps(clamped, _mm256_set1_ps(1.44269504f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(k, _mm256_set1_ps(0.693359375f), clamped);
  r = _mm256_fnmadd_ps(k, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.0f / 720.0f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  const __m256i power =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(k), _mm256_set1_epi32(127)), 23);
  return _mm256_andnot_ps(low, _mm256_mul_ps(p, _mm256_castsi256_ps(power)));
}

// Lanes [0, n) set, n in [0, 8].
[[gnu::always_inline]] inline __m256i FirstLanes(uint64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// Access to the eight elements at an index, or to the first few of them: a masked store takes many
// times longer than a plain one, so only the last vector of a row is masked.
struct AllLanes {
  [[gnu::always_inline]] __m256 Load(const float* at) const { return _mm256_loadu_ps(at); }
  [[gnu::always_inline]] void Store(float* at, __m256 v) const { _mm256_storeu_ps(at, v); }
};
struct SomeLanes {
  __m256i mask;
  [[gnu::always_inline]] __m256 Load(const float* at) const { return _mm256_maskload_ps(at, mask); }
  [[gnu::always_inline]] void Store(float* at, __m256 v) const { _mm256_maskstore_ps(at, mask, v); }
};

// Calls body(i, lanes) for every vector of [0, n).
template <typename Body>
[[gnu::always_inline]] inline void ForEachVector(uint64_t n, Body body) {
  uint64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, AllLanes());
  if (i < n) body(i, SomeLanes{FirstLanes(n - i)});
}

using PanelWalk = LanesWalk<kLanes>;

[[gnu::always_inline]] inline void StoreLanes(const PanelSpan& span, __m256 acc, float* y) {
  if (span.lane_end - span.lane_begin == kLanes) {
    _mm256_storeu_ps(y, acc);
    return;
  }
  float lanes[kLanes];
  _mm256_storeu_ps(lanes, acc);
  for (uint64_t i = span.lane_begin; i < span.lane_end; ++i) y[i - span.lane_begin] = lanes[i];
}

}  // namespace
}  // namespace tandem::cpu::avx2
