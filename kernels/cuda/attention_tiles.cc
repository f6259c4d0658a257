#include "kernels/cuda/attention_tiles.h"

#include <algorithm>

#include "engine/base/check.h"

namespace tandem::cuda {
namespace {

uint32_t FirstVisible(uint32_t position, uint32_t window) {
  return window > 0 && window <= position ? position + 1 - window : 0;
}

void AddTiles(const SequenceRows& sequence, uint32_t group, uint32_t window, AttentionPlan& plan) {
  if (sequence.n_rows == 0) return;
  const uint32_t queries = sequence.n_rows * group;
  const auto first_page = static_cast<uint32_t>(plan.pages.size());
  const uint32_t pages = (sequence.start + sequence.n_rows + kPageTokens - 1) / kPageTokens;
  plan.pages.insert(plan.pages.end(), sequence.pages, sequence.pages + pages);
  for (uint32_t first = 0; first < queries; first += kTileQueries) {
    AttentionTile tile{.first_row = sequence.first_row, .start = sequence.start};
    tile.first_query = first;
    tile.n = std::min(kTileQueries, queries - first);
    tile.pages = first_page;
    const uint32_t last = sequence.start + (first + tile.n - 1) / group;
    tile.fold_begin = FirstVisible(sequence.start + first / group, window) / kAttentionFold;
    tile.fold_end = last / kAttentionFold + 1;
    tile.partial = kNoPartial;
    plan.tiles.push_back(tile);
  }
}

// Each fold of a tile becomes a tile.
void RunApart(AttentionPlan& plan) {
  std::vector<AttentionTile> whole;
  whole.swap(plan.tiles);
  for (AttentionTile tile : whole) {
    if (tile.fold_end - tile.fold_begin > 1) {
      tile.partial = static_cast<uint32_t>(plan.partials);
      plan.joins.push_back(tile);
      plan.partials += tile.fold_end - tile.fold_begin;
    }
    for (uint32_t fold = tile.fold_begin; fold < tile.fold_end; ++fold) {
      AttentionTile one = tile;
      one.fold_begin = fold;
      one.fold_end = fold + 1;
      if (tile.partial != kNoPartial) one.partial = tile.partial + fold - tile.fold_begin;
      plan.tiles.push_back(one);
    }
  }
}

AttentionPlan WholeTiles(std::span<const SequenceRows> sequences, uint32_t group, uint32_t window) {
  AttentionPlan plan;
  for (const SequenceRows& sequence : sequences) AddTiles(sequence, group, window, plan);
  return plan;
}

// Whether folds should run side by side, and their states can be kept.
bool ShouldRunApart(uint64_t tiles, uint64_t folds, uint32_t kv_heads, uint32_t blocks,
                    uint64_t most_partials) {
  return tiles * kv_heads < blocks && folds > tiles && folds * kv_heads <= most_partials;
}

void Finish(AttentionPlan& plan, bool apart) {
  if (apart) return RunApart(plan);
  std::reverse(plan.tiles.begin(), plan.tiles.end());
}

}  // namespace

AttentionPlan PlanAttention(std::span<const SequenceRows> sequences, uint32_t group,
                            uint32_t kv_heads, uint32_t window, uint32_t blocks,
                            uint64_t most_partials) {
  AttentionPlan plan = WholeTiles(sequences, group, window);
  uint64_t folds = 0;
  for (const AttentionTile& tile : plan.tiles) folds += tile.fold_end - tile.fold_begin;
  Finish(plan, ShouldRunApart(plan.tiles.size(), folds, kv_heads, blocks, most_partials));
  return plan;
}

AttentionPlan PlanTiles(std::span<const SequenceRows> sequences, uint32_t group, uint32_t window,
                        bool apart) {
  AttentionPlan plan = WholeTiles(sequences, group, window);
  Finish(plan, apart);
  return plan;
}

AttentionRoom RoomForAttention(std::span<const SequenceRows> sequences, uint32_t group,
                               uint32_t kv_heads, uint32_t window, uint32_t positions,
                               uint32_t blocks, uint64_t most_partials) {
  uint32_t whole = 0;
  for (const SequenceRows& sequence : sequences) {
    Check(sequence.n_rows <= 1, "kernels/cuda: one row a sequence of a recorded step");
    whole += (sequence.n_rows * group + kTileQueries - 1) / kTileQueries;
  }
  uint32_t folds = (positions + kAttentionFold - 1) / kAttentionFold;
  // A window of w positions meets one fold more than it fills.
  if (window > 0) folds = std::min(folds, (window + kAttentionFold - 1) / kAttentionFold + 1);
  AttentionRoom room{.tiles = whole};
  room.apart = ShouldRunApart(whole, uint64_t{whole} * folds, kv_heads, blocks, most_partials);
  if (room.apart) {
    room.joins = whole;
    room.tiles = whole * folds;
  }
  return room;
}

}  // namespace tandem::cuda
