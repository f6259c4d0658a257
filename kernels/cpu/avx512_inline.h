// Vector helpers of the AVX-512 tiers. Internal linkage on purpose: the linker must never hand code
// with AVX-512 instructions to a file of another tier.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/tier_panels.h"

namespace tandem::cpu::avx512 {
namespace {

[[gnu::always_inline]] inline __m512 LoadHalves(const void* at) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(at)));
}

[[gnu::always_inline]] inline __m512i LoadBytes(const void* at) { return _mm512_loadu_si512(at); }

// Four bytes from `at` in every 32-bit lane.
[[gnu::always_inline]] inline __m512i BroadcastDword(const void* at) {
  int32_t dword;
  __builtin_memcpy(&dword, at, sizeof(dword));
  return _mm512_set1_epi32(dword);
}

// Lanes added in one fixed order: halves, quarters, pairs.
[[gnu::always_inline]] inline float SumLanes(__m512 v) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

[[gnu::always_inline]] inline float MaxLanes(__m512 v) {
  const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// exp(x) = 2^k * exp(r), k = round(x / ln 2), |r| <= ln(2)/2, exp(r) by its Taylor polynomial of
// degree 6 (1e-8 relative there). 0 below -87.3, finite above 88, NaN for NaN.
[[gnu::always_inline]] inline __m512 Exp(__m512 x) {
  const __mmask16 keep = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_NLT_UQ);
  // min and max return their second operand when one is NaN: it must be x.
  const __m512 clamped =
      _mm512_max_ps(_mm512_set1_ps(-87.3f), _mm512_min_ps(_mm512_set1_ps(88.0f), x));
  const __m512 k = _mm512_roundscale_ps(_mm512_mul_ps(clamped, _mm512_set1_ps(1.44269504f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(k, _mm512_set1_ps(0.693359375f), clamped);
  r = _mm512_fnmadd_ps(k, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.0f / 720.0f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_maskz_scalef_ps(keep, p, k);
}

// Access to the sixteen elements at an index, or to the first few of them.
struct AllLanes {
  [[gnu::always_inline]] __m512 Load(const float* at) const { return _mm512_loadu_ps(at); }
  [[gnu::always_inline]] void Store(float* at, __m512 v) const { _mm512_storeu_ps(at, v); }
};
struct SomeLanes {
  __mmask16 mask;
  [[gnu::always_inline]] __m512 Load(const float* at) const {
    return _mm512_maskz_loadu_ps(mask, at);
  }
  [[gnu::always_inline]] void Store(float* at, __m512 v) const {
    _mm512_mask_storeu_ps(at, mask, v);
  }
};

// Lanes [begin, end) set, 0 <= begin <= end <= 16.
[[gnu::always_inline]] inline __mmask16 Lanes(uint64_t begin, uint64_t end) {
  return static_cast<__mmask16>((1u << end) - (1u << begin));
}

// Calls body(i, lanes) for every vector of [0, n).
template <typename Body>
[[gnu::always_inline]] inline void ForEachVector(uint64_t n, Body body) {
  uint64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, AllLanes());
  if (i < n) body(i, SomeLanes{Lanes(0, n - i)});
}

using PanelWalk = LanesWalk<kLanes>;

[[gnu::always_inline]] inline void StoreLanes(const PanelSpan& span, __m512 acc, float* y) {
  if (span.lane_end - span.lane_begin == kLanes) {
    _mm512_storeu_ps(y, acc);
  } else {
    // `y` is the place of lane_begin; lanes before it are masked out and not touched.
    _mm512_mask_storeu_ps(y - span.lane_begin, Lanes(span.lane_begin, span.lane_end), acc);
  }
}

}  // namespace
}  // namespace tandem::cpu::avx512
