// Row conversions between f32 and the stored types. Formats and rounding are ggml's
// (ggml-common.h for the blocks, the *_ref functions of ggml-quants.c for the rounding):
//   Q8_0  f16 d, 32 x int8 q               x = d * q
//   Q4_0  f16 d, 16 bytes of two nibbles   x = d * (q - 8)
//   Q4_1  f16 d, f16 m, 16 bytes           x = d * q + m
// Byte j of a 4-bit block holds element j in its low nibble and element j + 16 in its high one.
// Built without fused multiply-adds, so that every machine rounds alike.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "engine/base/check.h"
#include "engine/model/dtype.h"

namespace tandem {
namespace {

constexpr uint64_t kBlock = 32;

struct BlockQ8 {
  uint16_t d;
  int8_t q[32];
};
struct BlockQ40 {
  uint16_t d;
  uint8_t q[16];
};
struct BlockQ41 {
  uint16_t d;
  uint16_t m;
  uint8_t q[16];
};
static_assert(sizeof(BlockQ8) == 34 && sizeof(BlockQ40) == 18 && sizeof(BlockQ41) == 20);

// Truncates to an integer in [low, high]; NaN gives low. The clamp matters only where 1/d
// overflowed (subnormal rows) or the input is not finite: there a bare cast would be undefined.
int ClampToInt(float value, int low, int high) {
  if (!(value > static_cast<float>(low))) {
    return low;
  }
  return value >= static_cast<float>(high) ? high : static_cast<int>(value);
}

float Inverse(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

// x: 32 values.
void Quantize(const float* x, BlockQ8& out) {
  float largest = 0.0f;
  for (uint64_t j = 0; j < kBlock; ++j) {
    largest = std::max(largest, std::fabs(x[j]));
  }
  const float d = largest / 127.0f;
  const float inverse = Inverse(d);
  out.d = F32ToF16(d);
  for (uint64_t j = 0; j < kBlock; ++j) {
    out.q[j] = static_cast<int8_t>(ClampToInt(std::round(x[j] * inverse), -127, 127));
  }
}

void Quantize(const float* x, BlockQ40& out) {
  float largest = 0.0f;  // magnitude
  float extreme = 0.0f;  // the value that has it; it becomes q = 0, that is -8 * d
  for (uint64_t j = 0; j < kBlock; ++j) {
    if (largest < std::fabs(x[j])) {
      largest = std::fabs(x[j]);
      extreme = x[j];
    }
  }
  const float d = extreme / -8.0f;
  const float inverse = Inverse(d);
  out.d = F32ToF16(d);
  for (uint64_t j = 0; j < kBlock / 2; ++j) {
    const int low = ClampToInt(x[j] * inverse + 8.5f, 0, 15);
    const int high = ClampToInt(x[j + kBlock / 2] * inverse + 8.5f, 0, 15);
    out.q[j] = static_cast<uint8_t>(low | (high << 4));
  }
}

void Quantize(const float* x, BlockQ41& out) {
  float least = FLT_MAX;
  float most = -FLT_MAX;
  for (uint64_t j = 0; j < kBlock; ++j) {
    least = x[j] < least ? x[j] : least;
    most = x[j] > most ? x[j] : most;
  }
  const float d = (most - least) / 15.0f;
  const float inverse = Inverse(d);
  out.d = F32ToF16(d);
  out.m = F32ToF16(least);
  for (uint64_t j = 0; j < kBlock / 2; ++j) {
    const int low = ClampToInt((x[j] - least) * inverse + 0.5f, 0, 15);
    const int high = ClampToInt((x[j + kBlock / 2] - least) * inverse + 0.5f, 0, 15);
    out.q[j] = static_cast<uint8_t>(low | (high << 4));
  }
}

void Dequantize(const BlockQ8& in, float* x) {
  const float d = F16ToF32(in.d);
  for (uint64_t j = 0; j < kBlock; ++j) {
    x[j] = d * static_cast<float>(in.q[j]);
  }
}

void Dequantize(const BlockQ40& in, float* x) {
  const float d = F16ToF32(in.d);
  for (uint64_t j = 0; j < kBlock / 2; ++j) {
    x[j] = d * static_cast<float>((in.q[j] & 15) - 8);
    x[j + kBlock / 2] = d * static_cast<float>((in.q[j] >> 4) - 8);
  }
}

void Dequantize(const BlockQ41& in, float* x) {
  const float d = F16ToF32(in.d);
  const float m = F16ToF32(in.m);
  for (uint64_t j = 0; j < kBlock / 2; ++j) {
    x[j] = d * static_cast<float>(in.q[j] & 15) + m;
    x[j + kBlock / 2] = d * static_cast<float>(in.q[j] >> 4) + m;
  }
}

// Files may align rows to less than a block type's own alignment, so blocks are copied in and out.
template <typename BlockType>
void DequantizeBlocks(const std::byte* row, float* out, uint64_t elems) {
  for (uint64_t i = 0; i < elems; i += kBlock, row += sizeof(BlockType)) {
    BlockType block;
    std::memcpy(&block, row, sizeof(block));
    Dequantize(block, out + i);
  }
}

template <typename BlockType>
void QuantizeBlocks(const float* row, std::byte* out, uint64_t elems) {
  for (uint64_t i = 0; i < elems; i += kBlock, out += sizeof(BlockType)) {
    BlockType block;
    Quantize(row + i, block);
    std::memcpy(out, &block, sizeof(block));
  }
}

template <typename Convert>
void WidenRow(const std::byte* row, float* out, uint64_t elems, Convert convert) {
  for (uint64_t i = 0; i < elems; ++i) {
    uint16_t bits;
    std::memcpy(&bits, row + 2 * i, sizeof(bits));
    out[i] = convert(bits);
  }
}

template <typename Convert>
void NarrowRow(const float* row, std::byte* out, uint64_t elems, Convert convert) {
  for (uint64_t i = 0; i < elems; ++i) {
    const uint16_t bits = convert(row[i]);
    std::memcpy(out + 2 * i, &bits, sizeof(bits));
  }
}

void CheckWholeBlocks(DType type, uint64_t elems) {
  Check(elems % Traits(type).block_elems == 0, "dtype: a row must be a whole number of blocks");
}

}  // namespace

void DequantizeRow(DType type, const void* row, float* out, uint64_t elems) {
  CheckWholeBlocks(type, elems);
  const auto* bytes = static_cast<const std::byte*>(row);
  switch (type) {
    case DType::kF32:
      std::memcpy(out, bytes, elems * sizeof(float));
      return;
    case DType::kF16:
      WidenRow(bytes, out, elems, F16ToF32);
      return;
    case DType::kBF16:
      WidenRow(bytes, out, elems, BF16ToF32);
      return;
    case DType::kQ8_0:
      DequantizeBlocks<BlockQ8>(bytes, out, elems);
      return;
    case DType::kQ4_0:
      DequantizeBlocks<BlockQ40>(bytes, out, elems);
      return;
    case DType::kQ4_1:
      DequantizeBlocks<BlockQ41>(bytes, out, elems);
      return;
  }
}

void QuantizeRow(DType type, const float* row, void* out, uint64_t elems) {
  CheckWholeBlocks(type, elems);
  auto* bytes = static_cast<std::byte*>(out);
  switch (type) {
    case DType::kF32:
      std::memcpy(bytes, row, elems * sizeof(float));
      return;
    case DType::kF16:
      NarrowRow(row, bytes, elems, F32ToF16);
      return;
    case DType::kBF16:
      NarrowRow(row, bytes, elems, F32ToBF16);
      return;
    case DType::kQ8_0:
      QuantizeBlocks<BlockQ8>(row, bytes, elems);
      return;
    case DType::kQ4_0:
      QuantizeBlocks<BlockQ40>(row, bytes, elems);
      return;
    case DType::kQ4_1:
      QuantizeBlocks<BlockQ41>(row, bytes, elems);
      return;
  }
}

}  // namespace tandem
