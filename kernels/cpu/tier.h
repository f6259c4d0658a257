// What an instruction tier must provide: a table of single-threaded kernels over work that the back
// end has already cut up (cpu_ops.cc, cpu_attention.cc). A tier is a set of files beside these and
// one line in tiers_*.cc.
//
// The numeric contract: each output element is summed in an order fixed by the K slice and the
// weight type alone. So a kernel may be called with any part of the rows, any number of tokens, in
// any tiling, and must give the same bits.
//
// Files of a tier are compiled with its instruction set, so they define nothing that the linker
// could share with other files: intrinsics, plain structs and unnamed namespaces only, no templates
// or inline functions of the standard library.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace tandem::cpu {

// 32 activations as int8 (kernels/int8_block.h) with the sums that weight types need.
struct alignas(16) PreparedBlock {
  int8_t q[32];
  float scale;
  float scaled_sum;  // scale * float(sum)
  int32_t sum;       // of q
  int32_t half_sum;  // of the first 16
};
static_assert(sizeof(PreparedBlock) == 48);

// Rows of BF16 activations end on a pair of columns: a zero where cols is odd.
constexpr uint64_t PaddedBf16Cols(uint64_t cols) { return cols + (cols & 1); }

// y(n, [row_begin, row_end)) = x(n, cols) * W^T over a run of panels.
struct PanelJob {
  DType type = DType::kF32;
  const std::byte* panels = nullptr;    // the first panel, at the K slice's first column
  uint64_t panel_stride = 0;            // bytes from panel to panel
  uint64_t cols = 0;                    // of the K slice
  uint64_t row_begin = 0;               // rows counted from the first panel's first lane;
  uint64_t row_end = 0;                 // row_begin is within the first panel
  uint64_t n = 0;                       // tokens
  const float* f32 = nullptr;           // (n, cols)
  const PreparedBlock* int8 = nullptr;  // (n, cols / 32), or (n, 2, cols / 32) in two parts
  Int8Parts parts = Int8Parts::kOne;    // kernels of a tier see one; two_parts.cc adds two up
  const uint16_t* bf16 = nullptr;       // (n, PaddedBf16Cols(cols))
  float* y = nullptr;                   // of token 0 and row_begin
  uint64_t y_stride = 0;
};

// Pairs of a row's heads rotated by (cos, sin) of rope_dim / 2 angles.
struct RotateJob {
  float* heads = nullptr;  // (n_heads, head_dim)
  uint32_t n_heads = 0;
  uint32_t head_dim = 0;
  uint32_t rope_dim = 0;
  bool interleaved = true;
  const float* cosines = nullptr;  // (rope_dim / 2)
  const float* sines = nullptr;
};

inline constexpr uint32_t kFoldPages = kAttentionFold / kPageTokens;
inline constexpr uint32_t kMaxQueries = 32;

// Some query vectors that read one KV head, over one fold of positions: for each query
//   s_i = scale * q.k_i,  m = max s_i,  l = sum exp(s_i - m),  o = sum exp(s_i - m) v_i
// over positions [firsts[query], counts[query]) of the fold (at least one). Neither firsts nor
// counts ever go down from one query to the next. Pages that no query sees are null.
struct FoldJob {
  uint32_t n_queries = 0;  // <= kMaxQueries
  uint32_t head_dim = 0;
  const float* const* queries = nullptr;    // each (head_dim)
  const uint32_t* firsts = nullptr;         // each in [0, its count)
  const uint32_t* counts = nullptr;         // each in [1, kAttentionFold]
  KeyOrder key_order = KeyOrder::kByColumn;
  const uint16_t* keys[kFoldPages] = {};    // each page's keys of one head, f16, in that order
  const uint16_t* values[kFoldPages] = {};  // each page's (kPageTokens, head_dim) f16
  // What is likely read next, in the order in which it lies in memory: as many bytes a page to be
  // fetched while those of `keys` and `values` are read. Set at least where those are.
  const uint16_t* ahead_keys[kFoldPages] = {};
  const uint16_t* ahead_values[kFoldPages] = {};
  float scale = 0.0f;
  float* m = nullptr;        // (n_queries)
  float* l = nullptr;        // (n_queries)
  float* o = nullptr;        // (n_queries, head_dim)
  float* scratch = nullptr;  // FoldScratchFloats(head_dim), 64-byte aligned
};

constexpr uint64_t FoldScratchFloats(uint64_t head_dim) {
  return uint64_t{kMaxQueries} * kAttentionFold + kPageTokens * head_dim;
}

// The state of one query after some folds, or of several: (n), (n) and (n, head_dim). Joining folds
// in order is Attention's definition.
struct FoldState {
  float* m;
  float* l;
  float* o;
};

struct Tier {
  const char* name;
  bool (*supported)();  // by the processor this runs on
  uint32_t lanes;       // rows of a panel
  bool bf16_pairs;      // BF16 panels hold pairs of columns (panel.h)

  void (*quantize)(const float* x, uint64_t blocks, PreparedBlock* out);
  void (*to_bf16)(const float* x, uint64_t n, uint16_t* out);
  void (*matmul_int8)(const PanelJob& job);
  void (*matmul_f32)(const PanelJob& job);
  // BF16 weights by BF16 activations. Null, with to_bf16, in a tier without such arithmetic: there
  // BF16 weights meet the same rounded activations as f32.
  void (*matmul_bf16)(const PanelJob& job);

  void (*rms_norm)(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden,
                   float* y);
  void (*add)(const float* x, const float* y, uint64_t n, float* out);
  void (*swiglu)(const float* gate, const float* up, uint64_t n, float* out);
  void (*rotate)(const RotateJob& job);
  void (*to_f16)(const float* x, uint64_t n, uint16_t* out);

  void (*attend_fold)(const FoldJob& job);
  // Joins `later` into `state`.
  void (*join_folds)(const FoldState& state, const FoldState& later, uint64_t head_dim);
};

// Every tier compiled in, best first; the last one runs everywhere.
struct TierList {
  const Tier* const* tiers;
  uint32_t count;
};
TierList CompiledTiers();

const Tier& PortableTier();
const Tier& Avx2Tier();
const Tier& Avx512Tier();
const Tier& Avx512Bf16Tier();

}  // namespace tandem::cpu
