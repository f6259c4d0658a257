// Packed weights as plain BF16 rows, for a library that multiplies such: the launcher.
//
// Thread rule: called by the host thread that owns the stream. Pointers are device memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/model/dtype.h"
#include "kernels/cuda/launch.h"

namespace tandem::cuda {

struct UnpackCall {
  const std::byte* w = nullptr;  // the first of the panels (layout.h)
  uint64_t panel_bytes = 0;
  uint32_t panels = 0;
  uint32_t packed_cols = 0;          // of a panel
  uint32_t col_begin = 0, cols = 0;  // the columns that are wanted
  uint32_t stride = 0;               // of the result, a multiple of kBf16Cols
  uint16_t* out = nullptr;           // (16 * panels, stride), at a multiple of 16 bytes
};
// Values are dequantised as by DequantizeRow and rounded to nearest even; columns from `cols` on
// are zeros. Rows that a matrix's last panel lacks are zeros as well.
void LaunchUnpack(DType type, const UnpackCall& call, const GpuStream& stream);

}  // namespace tandem::cuda
