#include "kernels/cuda/attention_tiles.h"

#include <algorithm>

#include "engine/base/check.h"

namespace tandem::cuda {
namespace {

uint32_t FirstVisible(uint32_t position, uint32_t window) {
  return window > 0 && window <= position ? position + 1 - window : 0;
}

// Cuts a sequence's queries into tiles of at most `most`.
void AddTiles(const SequenceRows& sequence, const AttentionShape& shape, uint32_t most,
              uint32_t first_page, std::vector<AttentionTile>& tiles) {
  const uint32_t queries = sequence.n_rows * shape.group;
  for (uint32_t first = 0; first < queries; first += most) {
    AttentionTile tile{.first_row = sequence.first_row, .start = sequence.start};
    tile.first_query = first;
    tile.n = std::min(most, queries - first);
    tile.pages = first_page;
    const uint32_t last = sequence.start + (first + tile.n - 1) / shape.group;
    tile.fold_begin =
        FirstVisible(sequence.start + first / shape.group, shape.window) / kAttentionFold;
    tile.fold_end = last / kAttentionFold + 1;
    tile.partial = kNoPartial;
    tiles.push_back(tile);
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

// A step of one row a sequence stays narrow whatever its heads: it may be recorded.
bool HasManyQueries(const SequenceRows& sequence, uint32_t group, uint32_t wide) {
  return wide > 0 && sequence.n_rows > 1 && 2 * sequence.n_rows * group > wide;
}

// Whether wide tiles of the sequences with many queries give every multiprocessor one.
bool ShouldBeWide(std::span<const SequenceRows> sequences, const AttentionShape& shape,
                  const AttentionLimits& limits) {
  uint64_t tiles = 0;
  for (const SequenceRows& sequence : sequences) {
    if (!HasManyQueries(sequence, shape.group, limits.wide)) continue;
    tiles += (sequence.n_rows * shape.group + limits.wide - 1) / limits.wide;
  }
  return tiles > 0 && 2 * tiles * shape.kv_heads >= limits.blocks;
}

AttentionPlan WholeTiles(std::span<const SequenceRows> sequences, const AttentionShape& shape,
                         uint32_t wide) {
  AttentionPlan plan;
  for (const SequenceRows& sequence : sequences) {
    if (sequence.n_rows == 0) continue;
    const auto first_page = static_cast<uint32_t>(plan.pages.size());
    const uint32_t pages = (sequence.start + sequence.n_rows + kPageTokens - 1) / kPageTokens;
    plan.pages.insert(plan.pages.end(), sequence.pages, sequence.pages + pages);
    if (HasManyQueries(sequence, shape.group, wide)) {
      AddTiles(sequence, shape, wide, first_page, plan.wide);
    } else {
      AddTiles(sequence, shape, kTileQueries, first_page, plan.tiles);
    }
  }
  return plan;
}

// Whether folds should run side by side, and their states can be kept.
bool ShouldRunApart(uint64_t tiles, uint64_t folds, uint32_t kv_heads,
                    const AttentionLimits& limits) {
  return tiles * kv_heads < limits.blocks && folds > tiles &&
         folds * kv_heads <= limits.most_partials;
}

void Finish(AttentionPlan& plan, bool apart) {
  std::reverse(plan.wide.begin(), plan.wide.end());
  if (apart) return RunApart(plan);
  std::reverse(plan.tiles.begin(), plan.tiles.end());
}

}  // namespace

AttentionPlan PlanAttention(std::span<const SequenceRows> sequences, const AttentionShape& shape,
                            const AttentionLimits& limits) {
  AttentionPlan plan =
      WholeTiles(sequences, shape, ShouldBeWide(sequences, shape, limits) ? limits.wide : 0);
  uint64_t folds = 0;
  for (const AttentionTile& tile : plan.tiles) folds += tile.fold_end - tile.fold_begin;
  Finish(plan, ShouldRunApart(plan.tiles.size(), folds, shape.kv_heads, limits));
  return plan;
}

AttentionPlan PlanTiles(std::span<const SequenceRows> sequences, const AttentionShape& shape,
                        bool apart) {
  AttentionPlan plan = WholeTiles(sequences, shape, 0);
  Finish(plan, apart);
  return plan;
}

AttentionRoom RoomForAttention(std::span<const SequenceRows> sequences, const AttentionShape& shape,
                               uint32_t positions, const AttentionLimits& limits) {
  uint32_t whole = 0;
  for (const SequenceRows& sequence : sequences) {
    Check(sequence.n_rows <= 1, "kernels/cuda: one row a sequence of a recorded step");
    whole += (sequence.n_rows * shape.group + kTileQueries - 1) / kTileQueries;
  }
  uint32_t folds = (positions + kAttentionFold - 1) / kAttentionFold;
  // A window of w positions meets one fold more than it fills.
  if (shape.window > 0) {
    folds = std::min(folds, (shape.window + kAttentionFold - 1) / kAttentionFold + 1);
  }
  AttentionRoom room{.tiles = whole};
  room.apart = ShouldRunApart(whole, uint64_t{whole} * folds, shape.kv_heads, limits);
  if (room.apart) {
    room.joins = whole;
    room.tiles = whole * folds;
  }
  return room;
}

}  // namespace tandem::cuda
