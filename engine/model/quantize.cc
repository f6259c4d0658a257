// Row conversions between f32 and the stored types. Formats are ggml's (quant_block.h), and so is
// the rounding of all but the K types (the *_ref functions of ggml-quants.c).
// Built without fused multiply-adds, so that every machine rounds alike.
#include "engine/model/quantize.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "engine/base/check.h"
#include "engine/model/quant_block.h"

namespace tandem {
namespace {

constexpr uint64_t kBlock = 32;

void PutF16(float value, std::byte* at) {
  const uint16_t bits = F32ToF16(value);
  std::memcpy(at, &bits, sizeof(bits));
}

// x: 32 values.
void QuantizeQ8(const float* x, std::byte* block) {
  float largest = 0.0f;
  for (uint64_t j = 0; j < kBlock; ++j) {
    largest = std::max(largest, std::fabs(x[j]));
  }
  const float d = largest / 127.0f;
  const float inverse = Inverse(d);
  PutF16(d, block);
  int8_t q[kBlock];
  for (uint64_t j = 0; j < kBlock; ++j) {
    q[j] = static_cast<int8_t>(ClampToInt(std::round(x[j] * inverse), -127, 127));
  }
  WriteCodes(DType::kQ8_0, q, block);
}

// Q4_0 and Q5_0. `half`: 8 or 16; the extreme value becomes -half.
void QuantizeSymmetric(DType type, int half, const float* x, std::byte* block) {
  float largest = 0.0f;  // magnitude
  float extreme = 0.0f;  // the value that has it
  for (uint64_t j = 0; j < kBlock; ++j) {
    if (largest < std::fabs(x[j])) {
      largest = std::fabs(x[j]);
      extreme = x[j];
    }
  }
  const float d = extreme / static_cast<float>(-half);
  const float inverse = Inverse(d);
  PutF16(d, block);
  const float rounding = static_cast<float>(half) + 0.5f;
  int8_t q[kBlock];
  for (uint64_t j = 0; j < kBlock; ++j) {
    q[j] = static_cast<int8_t>(ClampToInt(x[j] * inverse + rounding, 0, 2 * half - 1) - half);
  }
  WriteCodes(type, q, block);
}

// Q4_1 and Q5_1. `top`: 15 or 31.
void QuantizeFromMinimum(DType type, int top, const float* x, std::byte* block) {
  float least = FLT_MAX;
  float most = -FLT_MAX;
  for (uint64_t j = 0; j < kBlock; ++j) {
    least = x[j] < least ? x[j] : least;
    most = x[j] > most ? x[j] : most;
  }
  const float d = (most - least) / static_cast<float>(top);
  const float inverse = Inverse(d);
  PutF16(d, block);
  PutF16(least, block + 2);
  int8_t q[kBlock];
  for (uint64_t j = 0; j < kBlock; ++j) {
    q[j] = static_cast<int8_t>(ClampToInt((x[j] - least) * inverse + 0.5f, 0, top));
  }
  WriteCodes(type, q, block);
}

void QuantizeBlock(DType type, const float* x, std::byte* block) {
  switch (type) {
    case DType::kQ8_0:
      return QuantizeQ8(x, block);
    case DType::kQ4_0:
      return QuantizeSymmetric(type, 8, x, block);
    case DType::kQ5_0:
      return QuantizeSymmetric(type, 16, x, block);
    case DType::kQ4_1:
      return QuantizeFromMinimum(type, 15, x, block);
    case DType::kQ5_1:
      return QuantizeFromMinimum(type, 31, x, block);
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
      return QuantizeKBlock(type, x, block);
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      break;
  }
  Check(false, "dtype: not a quantised type");
}

void DequantizeBlock(DType type, const std::byte* block, float* x) {
  int8_t q[kMaxBlockElems];
  ReadCodes(type, block, q);
  const BlockScales scales = ReadScales(type, block);
  const bool adds = HasMinimum(type);
  for (uint32_t run = 0; run < Traits(type).block_elems / kRun; ++run) {
    const float d = scales.d * static_cast<float>(scales.scale[run]);
    for (uint32_t i = run * kRun; i < (run + 1) * kRun; ++i) {
      const float product = d * static_cast<float>(q[i]);
      x[i] = adds ? product + scales.added[run] : product;
    }
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
    default:
      break;
  }
  const DTypeTraits& traits = Traits(type);
  for (uint64_t i = 0; i < elems; i += traits.block_elems, bytes += traits.block_bytes) {
    DequantizeBlock(type, bytes, out + i);
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
    default:
      break;
  }
  const DTypeTraits& traits = Traits(type);
  for (uint64_t i = 0; i < elems; i += traits.block_elems, bytes += traits.block_bytes) {
    QuantizeBlock(type, row + i, bytes);
  }
}

}  // namespace tandem
