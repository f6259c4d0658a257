// Element types of tensors as model files store them, with the block layouts of ggml
// (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; ggml-common.h for the blocks).
// A quantised row is a whole number of blocks; a block is never cut.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tandem {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
};
inline constexpr DType kAllDTypes[] = {DType::kF32,  DType::kF16,  DType::kBF16, DType::kQ8_0,
                                       DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                       DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

struct DTypeTraits {
  const char* name;      // "Q4_1", as llama.cpp spells it
  uint32_t ggml_type;    // its number in a GGUF file
  uint32_t block_elems;  // elements a block holds (1 for plain types)
  uint32_t block_bytes;  // bytes a block takes
  bool quantized;
};

const DTypeTraits& Traits(DType type);
inline const char* ToString(DType type) { return Traits(type).name; }
std::optional<DType> DTypeFromGgml(uint32_t ggml_type);
// Case-insensitive: "q4_1", "bf16".
std::optional<DType> DTypeFromName(std::string_view name);
// "F32, F16, ... and Q6_K", for messages.
std::string DTypeNames();

// Bytes of a row of `elems` elements. REQUIRES: elems is a multiple of the type's block_elems.
uint64_t RowBytes(DType type, uint64_t elems);

// Conversions of single values, round to nearest even; bf16 and f16 as raw bits.
float F16ToF32(uint16_t bits);
uint16_t F32ToF16(float value);
float BF16ToF32(uint16_t bits);
uint16_t F32ToBF16(float value);

// Row conversions: `elems` elements, a whole number of blocks.
void DequantizeRow(DType type, const void* row, float* out, uint64_t elems);
// Rounds as ggml's reference quantisers do (quantize_row_q4_0_ref and its siblings), but for the K
// types, whose scales tandem searches in its own way (quantize_k.cc).
void QuantizeRow(DType type, const float* row, void* out, uint64_t elems);

}  // namespace tandem
