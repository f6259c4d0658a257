#include "engine/model/dtype.h"

#include <array>
#include <bit>
#include <cctype>
#include <iterator>

#include "engine/base/check.h"

namespace tandem {
namespace {

// In the order of DType.
constexpr std::array<DTypeTraits, std::size(kAllDTypes)> kTraits = {{
    {"F32", 0, 1, 4, false},
    {"F16", 1, 1, 2, false},
    {"BF16", 30, 1, 2, false},
    {"Q8_0", 8, 32, 34, true},
    {"Q4_0", 2, 32, 18, true},
    {"Q4_1", 3, 32, 20, true},
    {"Q5_0", 6, 32, 22, true},
    {"Q5_1", 7, 32, 24, true},
    {"Q4_K", 12, 256, 144, true},
    {"Q5_K", 13, 256, 176, true},
    {"Q6_K", 14, 256, 210, true},
}};

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) {
    return false;
  }
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::toupper(static_cast<unsigned char>(a[i])) !=
        std::toupper(static_cast<unsigned char>(b[i]))) {
      return false;
    }
  }
  return true;
}

}  // namespace

const DTypeTraits& Traits(DType type) {
  const auto index = static_cast<size_t>(type);
  Check(index < kTraits.size(), "dtype: no such type");
  return kTraits[index];
}

std::optional<DType> DTypeFromGgml(uint32_t ggml_type) {
  for (size_t i = 0; i < kTraits.size(); ++i) {
    if (kTraits[i].ggml_type == ggml_type) {
      return static_cast<DType>(i);
    }
  }
  return std::nullopt;
}

std::optional<DType> DTypeFromName(std::string_view name) {
  for (size_t i = 0; i < kTraits.size(); ++i) {
    if (EqualsIgnoringCase(kTraits[i].name, name)) {
      return static_cast<DType>(i);
    }
  }
  return std::nullopt;
}

std::string DTypeNames() {
  std::string names;
  for (const DTypeTraits& traits : kTraits) {
    if (!names.empty()) {
      names += &traits == &kTraits.back() ? " and " : ", ";
    }
    names += traits.name;
  }
  return names;
}

uint64_t RowBytes(DType type, uint64_t elems) {
  const DTypeTraits& traits = Traits(type);
  Check(elems % traits.block_elems == 0, "dtype: a row must be a whole number of blocks");
  return elems / traits.block_elems * traits.block_bytes;
}

float F16ToF32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0x1f) {  // infinity and NaN keep their payload
    return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  }
  if (exponent == 0) {  // zero and subnormals: mantissa units of 2^-24, exact in f32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t F32ToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {  // NaN: made quiet
    return static_cast<uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
  }
  if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
    return static_cast<uint16_t>(sign | 0x7c00u);
  }
  if (magnitude < 0x38800000u) {
    // Below 2^-14: adding 0.5 puts the unit in the last place at 2^-24, the subnormals' step, so
    // the f32 addition itself rounds to nearest even.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  magnitude += 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u) >> 13));
}

float BF16ToF32(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

uint16_t F32ToBF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {  // NaN: made quiet
    return static_cast<uint16_t>((bits >> 16) | 0x40u);
  }
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace tandem
