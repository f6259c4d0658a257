// Quantised panels as the AVX2 tier meets them: one group of 32 columns as eight vectors, four
// columns of eight rows each, and the scales of a block. Internal linkage, as avx2_inline.h.
#pragma once

#include "kernels/cpu/avx2_inline.h"

namespace tandem::cpu::avx2 {
namespace {

template <DType T>
using Format = LanesFormat<T, kLanes>;

[[gnu::always_inline]] inline __m256i LoadBytes(const void* at) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}

// Bit `from` of every byte, and those above it, moved to bit 4; other bits are rubbish.
template <int from>
[[gnu::always_inline]] inline __m256i ToBitFour(__m256i bits) {
  if constexpr (from < 4) return _mm256_slli_epi16(bits, 4 - from);
  if constexpr (from > 4) return _mm256_srli_epi16(bits, from - 4);
  return bits;
}

template <DType T, int i>
[[gnu::always_inline]] inline void RaiseCodes(const std::byte* at, __m256i* w) {
  if constexpr (Format<T>::k.bits == 5) {
    const __m256i high = ToBitFour<i>(LoadBytes(at + 128));
    w[i] = _mm256_or_si256(w[i], _mm256_and_si256(high, _mm256_set1_epi8(0x10)));
  } else if constexpr (Format<T>::k.bits == 6) {
    const __m256i high = ToBitFour<i % 4 * 2>(LoadBytes(at + 128 + i / 4 * 32));
    w[i] = _mm256_or_si256(w[i], _mm256_and_si256(high, _mm256_set1_epi8(0x30)));
  }
  if constexpr (i < 7) RaiseCodes<T, i + 1>(at, w);
}

// The eight vectors of a group: stored codes as bytes, or signed bytes of Q8_0.
template <DType T>
[[gnu::always_inline]] inline void UnpackCodes(const std::byte* at, __m256i* w) {
  if constexpr (Format<T>::k.bits == 8) {
    for (int i = 0; i < 8; ++i) w[i] = LoadBytes(at + 32 * i);
    return;
  }
  const __m256i nibble = _mm256_set1_epi8(15);
  for (int i = 0; i < 4; ++i) {
    const __m256i both = LoadBytes(at + 32 * i);
    w[i] = _mm256_and_si256(both, nibble);
    w[i + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
  }
  if constexpr (Format<T>::k.bits > 4) RaiseCodes<T, 0>(at, w);
}

// The scales of a block's groups: of all columns, or (Q6_K) those of their halves apart.
template <DType T>
struct Scales {
  static constexpr uint64_t kGroups = Format<T>::kGroups;
  __m256 d[kGroups];
  __m256 m[kGroups];                                     // added; where the type has a minimum
  __m256 halves[Format<T>::kSixteens ? kGroups : 1][2];  // integers

  [[gnu::always_inline]] explicit Scales(const std::byte* block) {
    const __m256 whole = LoadHalves(block + Format<T>::kFieldsAt);
    if constexpr (Format<T>::kSixteens) {
      for (uint64_t g = 0; g < kGroups; ++g) d[g] = whole;
      ReadBytes(block);
    } else if constexpr (Format<T>::k.sub_scales) {
      const __m256 minimum = LoadHalves(block + Format<T>::kFieldsAt + 2 * kLanes);
      ReadSixBits(block, whole, _mm256_xor_ps(minimum, _mm256_set1_ps(-0.0f)));
    } else {
      d[0] = whole;
      if constexpr (Format<T>::k.minimum) {
        m[0] = LoadHalves(block + Format<T>::kFieldsAt + 2 * kLanes);
      }
    }
  }

 private:
  [[gnu::always_inline]] void ReadBytes(const std::byte* block) {
    for (int p = 0; p < 4; ++p) {
      const __m256i dwords = LoadBytes(block + 32 * p);
      for (int j = 0; j < 4; ++j) {
        const __m256i scale = _mm256_srai_epi32(_mm256_slli_epi32(dwords, 24 - 8 * j), 24);
        halves[2 * p + j / 2][j % 2] = _mm256_cvtepi32_ps(scale);
      }
    }
  }
  [[gnu::always_inline]] void ReadSixBits(const std::byte* block, __m256 whole, __m256 negative) {
    const __m256i own[2] = {LoadBytes(block), LoadBytes(block + 32)};
    const __m256i shared = LoadBytes(block + 64);
    const __m256i low = _mm256_set1_epi32(15);
    const __m256i high = _mm256_set1_epi32(0x30);
    for (int j = 0; j < 4; ++j) {
      for (int which = 0; which < 2; ++which) {
        const __m256i first =
            _mm256_and_si256(_mm256_srli_epi32(own[which], 8 * j), _mm256_set1_epi32(63));
        const __m256i second =
            _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi32(shared, 8 * j + 4 * which), low),
                            _mm256_and_si256(_mm256_srli_epi32(own[which], 8 * j + 2), high));
        __m256* to = which == 0 ? d : m;
        const __m256 times = which == 0 ? whole : negative;
        to[j] = _mm256_mul_ps(times, _mm256_cvtepi32_ps(first));
        to[j + 4] = _mm256_mul_ps(times, _mm256_cvtepi32_ps(second));
      }
    }
  }
};

}  // namespace
}  // namespace tandem::cpu::avx2
