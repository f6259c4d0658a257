#include "engine/model/quant_block.h"

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"

namespace tandem {
namespace {

// Where the bits of an element are: four low ones in a nibble, and for some types more elsewhere.
struct CodePlace {
  uint32_t low_byte;
  uint32_t low_shift;
  uint32_t high_byte;
  uint32_t high_shift;
};

constexpr uint32_t HighBits(DType type) {
  switch (type) {
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ5_K:
      return 1;
    case DType::kQ6_K:
      return 2;
    default:
      return 0;
  }
}

// Types with blocks of 32: byte j has element j in its low nibble and element j + 16 in its high
// one. K types: 32 bytes for two sub-blocks of 32, the first in the low nibbles; Q6_K pairs the
// sub-blocks of a half otherwise.
template <DType T>
constexpr CodePlace PlaceOf(uint32_t i) {
  const uint32_t sub = i / 32;
  const uint32_t in_sub = i % 32;
  switch (T) {
    case DType::kQ4_0:
      return {2 + i % 16, i / 16 * 4, 0, 0};
    case DType::kQ4_1:
      return {4 + i % 16, i / 16 * 4, 0, 0};
    case DType::kQ5_0:
      return {6 + i % 16, i / 16 * 4, 2 + i / 8, i % 8};
    case DType::kQ5_1:
      return {8 + i % 16, i / 16 * 4, 4 + i / 8, i % 8};
    case DType::kQ4_K:
      return {16 + sub / 2 * 32 + in_sub, sub % 2 * 4, 0, 0};
    case DType::kQ5_K:
      return {48 + sub / 2 * 32 + in_sub, sub % 2 * 4, 16 + in_sub, sub};
    case DType::kQ6_K:
      return {sub / 4 * 64 + sub % 2 * 32 + in_sub, sub % 4 / 2 * 4, 128 + sub / 4 * 32 + in_sub,
              sub % 4 * 2};
    default:
      return {0, 0, 0, 0};
  }
}

constexpr int OffsetOf(DType type) {
  switch (type) {
    case DType::kQ4_0:
      return 8;
    case DType::kQ5_0:
      return 16;
    case DType::kQ6_K:
      return 32;
    default:
      return 0;
  }
}

template <DType T>
constexpr uint32_t kElems = T == DType::kQ4_K || T == DType::kQ5_K || T == DType::kQ6_K ? 256 : 32;

template <DType T>
void Read(const uint8_t* block, int8_t* q) {
  constexpr uint32_t kHighMask = (1u << HighBits(T)) - 1;
  for (uint32_t i = 0; i < kElems<T>; ++i) {
    const CodePlace at = PlaceOf<T>(i);
    uint32_t code = (uint32_t{block[at.low_byte]} >> at.low_shift) & 15u;
    if constexpr (kHighMask != 0) {
      code |= ((uint32_t{block[at.high_byte]} >> at.high_shift) & kHighMask) << 4;
    }
    q[i] = static_cast<int8_t>(static_cast<int>(code) - OffsetOf(T));
  }
}

template <DType T>
void Write(const int8_t* q, uint8_t* block) {
  constexpr uint32_t kHighMask = (1u << HighBits(T)) - 1;
  const auto put = [block](uint32_t byte, uint32_t shift, uint32_t mask, uint32_t value) {
    const uint32_t kept = uint32_t{block[byte]} & ~(mask << shift);
    block[byte] = static_cast<uint8_t>(kept | ((value & mask) << shift));
  };
  for (uint32_t i = 0; i < kElems<T>; ++i) {
    const CodePlace at = PlaceOf<T>(i);
    const auto code = static_cast<uint32_t>(q[i] + OffsetOf(T));
    put(at.low_byte, at.low_shift, 15u, code);
    if constexpr (kHighMask != 0) put(at.high_byte, at.high_shift, kHighMask, code >> 4);
  }
}

// Calls body with the type as a constant.
template <typename Body>
void ForPackedBits(DType type, Body body) {
  switch (type) {
    case DType::kQ4_0:
      return body.template operator()<DType::kQ4_0>();
    case DType::kQ4_1:
      return body.template operator()<DType::kQ4_1>();
    case DType::kQ5_0:
      return body.template operator()<DType::kQ5_0>();
    case DType::kQ5_1:
      return body.template operator()<DType::kQ5_1>();
    case DType::kQ4_K:
      return body.template operator()<DType::kQ4_K>();
    case DType::kQ5_K:
      return body.template operator()<DType::kQ5_K>();
    case DType::kQ6_K:
      return body.template operator()<DType::kQ6_K>();
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kQ8_0:
      break;
  }
  Check(false, "quant_block: not a type with packed bits");
}

float HalfAt(const std::byte* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  return F16ToF32(bits);
}

void ReadKScales(const std::byte* block, BlockScales& out) {
  uint8_t scales[kKSubBlocks];
  uint8_t minima[kKSubBlocks];
  UnpackKScales(block + 4, scales, minima);
  const float dmin = HalfAt(block + 2);
  for (uint32_t run = 0; run < kMaxRuns; ++run) {
    out.scale[run] = scales[run / 2];
    out.added[run] = -(dmin * static_cast<float>(minima[run / 2]));
  }
}

}  // namespace

int CodeOffset(DType type) { return OffsetOf(type); }

bool HasMinimum(DType type) {
  return type == DType::kQ4_1 || type == DType::kQ5_1 || type == DType::kQ4_K ||
         type == DType::kQ5_K;
}

void ReadCodes(DType type, const std::byte* block, int8_t* q) {
  if (type == DType::kQ8_0) {
    std::memcpy(q, block + 2, 32);
    return;
  }
  ForPackedBits(type, [&]<DType T>() { Read<T>(reinterpret_cast<const uint8_t*>(block), q); });
}

void WriteCodes(DType type, const int8_t* q, std::byte* block) {
  if (type == DType::kQ8_0) {
    std::memcpy(block + 2, q, 32);
    return;
  }
  ForPackedBits(type, [&]<DType T>() { Write<T>(q, reinterpret_cast<uint8_t*>(block)); });
}

BlockScales ReadScales(DType type, const std::byte* block) {
  BlockScales out;
  out.d = HalfAt(block + (type == DType::kQ6_K ? 208 : 0));
  if (type == DType::kQ4_K || type == DType::kQ5_K) {
    ReadKScales(block, out);
    return out;
  }
  const float m = type == DType::kQ4_1 || type == DType::kQ5_1 ? HalfAt(block + 2) : 0.0f;
  for (uint32_t run = 0; run < kMaxRuns; ++run) {
    out.scale[run] = type == DType::kQ6_K ? static_cast<int8_t>(block[192 + run]) : 1;
    out.added[run] = m;
  }
  return out;
}

// Bytes 0..3: scales 0..3, bytes 4..7: minima 0..3, each with two upper bits of number 4..7 on top;
// bytes 8..11: the low nibbles of scales 4..7 and, above, of minima 4..7.
void UnpackKScales(const std::byte* at, uint8_t* scales, uint8_t* minima) {
  const auto* s = reinterpret_cast<const uint8_t*>(at);
  for (uint32_t j = 0; j < 4; ++j) {
    scales[j] = s[j] & 63;
    minima[j] = s[j + 4] & 63;
    scales[j + 4] = static_cast<uint8_t>((s[j + 8] & 15) | (s[j] >> 6 << 4));
    minima[j + 4] = static_cast<uint8_t>((s[j + 8] >> 4) | (s[j + 4] >> 6 << 4));
  }
}

void PackKScales(const uint8_t* scales, const uint8_t* minima, std::byte* at) {
  auto* s = reinterpret_cast<uint8_t*>(at);
  for (uint32_t j = 0; j < 4; ++j) {
    s[j] = static_cast<uint8_t>(scales[j] | (scales[j + 4] >> 4 << 6));
    s[j + 4] = static_cast<uint8_t>(minima[j] | (minima[j + 4] >> 4 << 6));
    s[j + 8] = static_cast<uint8_t>((scales[j + 4] & 15) | ((minima[j + 4] & 15) << 4));
  }
}

}  // namespace tandem
