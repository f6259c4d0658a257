// Launchers of everything that is done row by row: activations prepared for products, the table
// lookup, norms, elementwise ops, the rotation and the KV pages. Bound by memory; each output is
// computed in an order fixed by its row's length alone.
//
// Thread rule: called by the host thread that owns the stream. Pointers are device memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/layout.h"
#include "kernels/ops.h"

namespace tandem::cuda {

// (n, cols) -> (n, parts, groups of 128), the definition of kernels/int8_block.h.
void LaunchQuantize(const float* x, uint32_t n, uint32_t cols, uint32_t parts, PreparedGroup* out,
                    void* stream);
// (n, cols) -> (n, cols rounded up to 64), rounded to nearest even.
void LaunchToBf16(const float* x, uint32_t n, uint32_t cols, uint16_t* out, void* stream);

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
void LaunchEmbed(DType type, const EmbedCall& call, void* stream);

void LaunchRmsNorm(const float* x, const float* w, float eps, uint64_t n, uint32_t hidden, float* y,
                   void* stream);
void LaunchAdd(const float* x, const float* y, uint64_t n, float* out, void* stream);
void LaunchAddBias(const float* bias, uint64_t n, uint64_t width, float* y, void* stream);
void LaunchSwiGlu(const float* gate, const float* up, uint64_t n, float* out, void* stream);

// Where a row of a step stands.
struct RowPlace {
  uint32_t row;  // of q, k and v
  uint32_t position;
  int32_t page;
};

// angles (rows, half): cosine and sine of position * frequency, times the magnitude.
void LaunchAngles(const RowPlace* rows, uint32_t n, const double* frequencies, uint32_t half,
                  float magnitude, float* angles, void* stream);

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
void LaunchRopeAndStore(const RopeCall& call, void* stream);

}  // namespace tandem::cuda
