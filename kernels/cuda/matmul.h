// What the host tells the product kernels, and their launchers.
//
// Order of an output's sum, for any number of rows (the numeric contract): groups of columns (128
// of a quantised type, 64 of a plain one) are counted from the slice's first column; group i
// belongs to chain i mod 8; a chain adds its groups in order, and chains are added in order, from
// zero. Within a group: int8, block after block (int8_block.h), exact within a block; BF16, four
// tensor-core steps of 16 columns; f32, see matmul_f32.cu.
//
// Thread rule: the launchers are called by the host thread that owns the stream.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/model/dtype.h"
#include "kernels/cuda/launch.h"

namespace tandem::cuda {

inline constexpr uint32_t kChains = 8;
inline constexpr uint32_t kMaxParts = 8;

// A task, in the coordinates of its packed matrix.
struct MatMulPart {
  const std::byte* w = nullptr;
  float* y = nullptr;
  uint64_t y_stride = 0;
  uint32_t row_begin = 0, row_end = 0;
  uint32_t col_begin = 0;
  uint32_t packed_cols = 0;
  uint64_t panel_bytes = 0;
  uint32_t first_panel = 0;  // of this part, in the count over all parts
};

// Parts of one weight type that meet the same rows. Passed to kernels by value.
struct MatMulCall {
  MatMulPart parts[kMaxParts];
  uint32_t n_parts = 0;
  uint32_t panels = 0;     // of all parts
  uint32_t n = 0;          // rows that meet weights: rows of x times their parts
  uint32_t row_parts = 1;  // 2: an output is the sum of those of rows 2i and 2i + 1
  uint32_t cols = 0;
  uint32_t ahead = 0;  // groups of a chain that few rows' products fetch ahead; fetch_ahead.h
  const std::byte* narrow = nullptr;  // PreparedGroup, or BF16
  const float* f32 = nullptr;         // (n, cols)
};

// Few rows, and many: the same bits.
void LaunchMatMulInt8(DType type, const MatMulCall& call, const GpuStream& stream);
void LaunchMatMulBf16(const MatMulCall& call, const GpuStream& stream);
void LaunchPrefillInt8(DType type, const MatMulCall& call, const GpuStream& stream);
void LaunchPrefillBf16(const MatMulCall& call, const GpuStream& stream);
// Any number.
void LaunchMatMulF32(DType type, const MatMulCall& call, const GpuStream& stream);

}  // namespace tandem::cuda
