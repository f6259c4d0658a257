// Launchers of everything that is done row by row: activations prepared for products, the table
// lookup, norms, elementwise ops, the rotation and the KV pages. Bound by memory; each output is
// computed in an order fixed by its row's length alone.
//
// Thread rule: called by the host thread that owns the stream. Pointers are device memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/layout.h"
#include "kernels/ops.h"

namespace tandem::cuda {

// Rows (n, cols) to prepare for products; with `up`, silu(x) * up.
struct PrepareCall {
  const float* x = nullptr;
  const float* up = nullptr;
  uint32_t n = 0;
  uint32_t cols = 0;
};
// -> (n, parts, groups of 128), the definition of kernels/int8_block.h.
void LaunchQuantize(const PrepareCall& call, uint32_t parts, PreparedGroup* out,
                    const GpuStream& stream);
// -> (n, cols rounded up to 64), rounded to nearest even.
void LaunchToBf16(const PrepareCall& call, uint16_t* out, const GpuStream& stream);

struct EmbedCall {
  const std::byte* table = nullptr;
  uint64_t panel_bytes = 0;
  uint32_t packed_cols = 0;
  uint32_t col_begin = 0, hidden = 0;              // in the packed matrix
  int64_t first_id = 0, id_begin = 0, id_end = 0;  // of row 0; those that are there
  const int32_t* ids = nullptr;
  uint32_t n = 0;
  float* out = nullptr;
};
void LaunchEmbed(DType type, const EmbedCall& call, const GpuStream& stream);

// Rows (n, width). With a sum, that is x + y, and norm is its norm; else norm is x's.
struct NormCall {
  const float* x = nullptr;
  const float* y = nullptr;
  const float* w = nullptr;  // (width)
  float eps = 0.0f;
  uint64_t n = 0;
  uint32_t width = 0;
  float* sum = nullptr;
  float* norm = nullptr;
};
void LaunchNorm(const NormCall& call, const GpuStream& stream);
// One of this folder's kernels, all of which are compiled for the same GPUs.
const void* AKernel();
void LaunchAdd(const float* x, const float* y, uint64_t n, float* out, const GpuStream& stream);
void LaunchAddBias(const float* bias, uint64_t n, uint64_t width, float* y,
                   const GpuStream& stream);
void LaunchSwiGlu(const float* gate, const float* up, uint64_t n, float* out,
                  const GpuStream& stream);

// Where a row of a step stands.
struct RowPlace {
  uint32_t row;  // of q, k and v
  uint32_t position;
  int32_t page;
};

// angles (rows, half): cosine and sine of position * frequency, times the magnitude.
void LaunchAngles(const RowPlace* rows, uint32_t n, const double* frequencies, uint32_t half,
                  float magnitude, float* angles, const GpuStream& stream);

struct RopeCall {
  float* q = nullptr;
  float* k = nullptr;
  const float* v = nullptr;
  uint32_t q_heads = 0;
  uint32_t half = 0;
  bool interleaved = true;
  const RowPlace* rows = nullptr;
  uint32_t n = 0;
  const float* angles = nullptr;
  KvView kv;
};
void LaunchRopeAndStore(const RopeCall& call, const GpuStream& stream);

}  // namespace tandem::cuda
