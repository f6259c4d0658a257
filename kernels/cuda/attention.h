// What the host tells the attention kernels, and their launchers. The arithmetic is said in
// attention.cu.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/ops.h"

namespace tandem::cuda {

// Query vectors of one KV head, row * group + head, that a block takes: of few,
inline constexpr uint32_t kTileQueries = 16;
// and of a prompt's many. Where there is less to multiply a page serves more of them, or its way to
// the multiprocessor would take longer than the products.
constexpr uint32_t WideQueries(AttentionPrecision precision) {
  return precision == AttentionPrecision::kSplit ? 64 : 128;
}
inline constexpr uint32_t kNoPartial = UINT32_MAX;

// A tile of queries of one sequence and a range of its folds.
struct AttentionTile {
  uint32_t first_row;    // of the sequence, in q
  uint32_t start;        // its position
  uint32_t first_query;  // of the tile, in the sequence
  uint32_t n;            // queries, at most kTileQueries or WideQueries
  uint32_t pages;        // where the sequence's pages start in the list
  uint32_t fold_begin, fold_end;
  uint32_t
      partial;  // of fold_begin, counted in states a KV head; kNoPartial: the output is written
};

struct AttentionCall {
  const float* q = nullptr;
  float* out = nullptr;
  uint32_t q_heads = 0;
  uint32_t window = 0;
  AttentionPrecision precision = AttentionPrecision::kSplit;
  KvView kv;
  const AttentionTile* tiles = nullptr;
  uint32_t n_tiles = 0;
  const int32_t* pages = nullptr;
  float* partials = nullptr;
};

// head_dim as the kernels pad it; 0 where it is too large.
uint32_t PaddedHeadDim(uint32_t head_dim);
// Floats of one fold's state for a tile and KV head: m and l of each query, then o.
constexpr uint64_t StateFloats(uint32_t padded_head_dim) {
  return uint64_t{kTileQueries} * (2 + padded_head_dim);
}

// Tiles with partials leave each fold's state there; the others give outputs.
void LaunchAttention(const AttentionCall& call, const GpuStream& stream);
// The same bits from wide tiles, all their folds at once, for heads that can be wide.
bool CanBeWide(uint32_t head_dim);
void LaunchWideAttention(const AttentionCall& call, const GpuStream& stream);
// Joins the states of each tile's folds in order, and gives outputs.
void LaunchJoinFolds(const AttentionCall& call, const GpuStream& stream);

}  // namespace tandem::cuda
