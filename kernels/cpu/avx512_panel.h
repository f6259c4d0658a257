// Quantised panels as the AVX-512 tiers meet them: one group of 32 columns as eight vectors, four
// columns of sixteen rows each, and the scales of a block. Internal linkage, as avx512_inline.h.
#pragma once

#include "kernels/cpu/avx512_inline.h"

namespace tandem::cpu::avx512 {
namespace {

template <DType T>
using Format = LanesFormat<T, kLanes>;

// Bit `from` of every byte, and those above it, moved to bit 4; other bits are rubbish.
template <int from>
[[gnu::always_inline]] inline __m512i ToBitFour(__m512i bits) {
  if constexpr (from < 4) return _mm512_slli_epi16(bits, 4 - from);
  if constexpr (from > 4) return _mm512_srli_epi16(bits, from - 4);
  return bits;
}

template <DType T, int i>
[[gnu::always_inline]] inline void RaiseCodes(const std::byte* at, __m512i* w) {
  if constexpr (Format<T>::k.bits == 5) {
    const __m512i high = ToBitFour<i>(LoadBytes(at + 256));
    w[i] = _mm512_or_si512(w[i], _mm512_and_si512(high, _mm512_set1_epi8(0x10)));
  } else if constexpr (Format<T>::k.bits == 6) {
    const __m512i high = ToBitFour<i % 4 * 2>(LoadBytes(at + 256 + i / 4 * 64));
    w[i] = _mm512_or_si512(w[i], _mm512_and_si512(high, _mm512_set1_epi8(0x30)));
  }
  if constexpr (i < 7) RaiseCodes<T, i + 1>(at, w);
}

// The eight vectors of a group: stored codes as bytes, or signed bytes of Q8_0.
template <DType T>
[[gnu::always_inline]] inline void UnpackCodes(const std::byte* at, __m512i* w) {
  if constexpr (Format<T>::k.bits == 8) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) w[i] = LoadBytes(at + 64 * i);
    return;
  }
  const __m512i nibble = _mm512_set1_epi8(15);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i both = LoadBytes(at + 64 * i);
    w[i] = _mm512_and_si512(both, nibble);
    w[i + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
  }
  if constexpr (Format<T>::k.bits > 4) RaiseCodes<T, 0>(at, w);
}

// The scales of a block's groups: of all columns, or (Q6_K) of their halves apart. Their products
// with the block's scale are exact.
template <DType T>
struct Scales {
  static constexpr uint64_t kGroups = Format<T>::kGroups;
  __m512 d[kGroups];                                     // but for Q6_K
  __m512 m[kGroups];                                     // added; where the type has a minimum
  __m512 halves[Format<T>::kSixteens ? kGroups : 1][2];  // Q6_K

  [[gnu::always_inline]] explicit Scales(const std::byte* block) {
    const __m512 whole = LoadHalves(block + Format<T>::kFieldsAt);
    if constexpr (Format<T>::kSixteens) {
      ReadBytes(block, whole);
    } else if constexpr (Format<T>::k.sub_scales) {
      const __m512 minimum = LoadHalves(block + Format<T>::kFieldsAt + 2 * kLanes);
      ReadSixBits(block, whole, _mm512_xor_ps(minimum, _mm512_set1_ps(-0.0f)));
    } else {
      d[0] = whole;
      if constexpr (Format<T>::k.minimum) {
        m[0] = LoadHalves(block + Format<T>::kFieldsAt + 2 * kLanes);
      }
    }
  }

 private:
  [[gnu::always_inline]] void ReadBytes(const std::byte* block, __m512 whole) {
    for (int p = 0; p < 4; ++p) {
      const __m512i dwords = LoadBytes(block + 64 * p);
      for (int j = 0; j < 4; ++j) {
        const __m512i scale =
            _mm512_srai_epi32(_mm512_slli_epi32(dwords, static_cast<unsigned>(24 - 8 * j)), 24);
        halves[2 * p + j / 2][j % 2] = _mm512_mul_ps(whole, _mm512_cvtepi32_ps(scale));
      }
    }
  }
  [[gnu::always_inline]] void ReadSixBits(const std::byte* block, __m512 whole, __m512 negative) {
    const __m512i own[2] = {LoadBytes(block), LoadBytes(block + 64)};
    const __m512i shared = LoadBytes(block + 128);
    const __m512i low = _mm512_set1_epi32(15);
    const __m512i high = _mm512_set1_epi32(0x30);
    for (int j = 0; j < 4; ++j) {
      for (int which = 0; which < 2; ++which) {
        const __m512i first = _mm512_and_si512(
            _mm512_srli_epi32(own[which], static_cast<unsigned>(8 * j)), _mm512_set1_epi32(63));
        const __m512i second = _mm512_or_si512(
            _mm512_and_si512(_mm512_srli_epi32(shared, static_cast<unsigned>(8 * j + 4 * which)),
                             low),
            _mm512_and_si512(_mm512_srli_epi32(own[which], static_cast<unsigned>(8 * j + 2)),
                             high));
        __m512* to = which == 0 ? d : m;
        const __m512 times = which == 0 ? whole : negative;
        to[j] = _mm512_mul_ps(times, _mm512_cvtepi32_ps(first));
        to[j + 4] = _mm512_mul_ps(times, _mm512_cvtepi32_ps(second));
      }
    }
  }
};

}  // namespace
}  // namespace tandem::cpu::avx512
