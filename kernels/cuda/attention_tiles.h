// Cuts a step's attention into tiles, and decides which folds run side by side.
//
// Thread rule: any thread; no state.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/attention.h"

namespace tandem::cuda {

// What all sequences of a call share. group: query heads of a KV head.
struct AttentionShape {
  uint32_t group = 0;
  uint32_t kv_heads = 0;
  uint32_t window = 0;
  bool operator==(const AttentionShape&) const = default;
};

// blocks: how many blocks of four warps keep the GPU busy. most_partials: states of all KV heads
// that may be kept. wide: queries of a wide tile; 0: there are none.
struct AttentionLimits {
  uint32_t blocks = 0;
  uint64_t most_partials = 0;
  uint32_t wide = 0;
};

struct AttentionPlan {
  std::vector<AttentionTile> tiles;  // what Attend runs: whole tiles, or one fold each
  std::vector<AttentionTile> joins;  // tiles whose folds run apart, with their partials
  std::vector<AttentionTile> wide;   // what AttendWide runs
  std::vector<int32_t> pages;        // of all sequences, one after the other
  uint64_t partials = 0;             // states a KV head
};

// Sequences with many queries are cut into wide tiles where these are enough for the GPU. Late
// tiles come first: they see the most positions.
AttentionPlan PlanAttention(std::span<const SequenceRows> sequences, const AttentionShape& shape,
                            const AttentionLimits& limits);

// The same without the choice: no wide tiles, and whether folds run side by side is given.
AttentionPlan PlanTiles(std::span<const SequenceRows> sequences, const AttentionShape& shape,
                        bool apart);

// The most that PlanTiles gives while sequences, of one row each, grow up to `positions`, and
// whether their folds should run side by side.
struct AttentionRoom {
  uint32_t tiles = 0;
  uint32_t joins = 0;
  bool apart = false;
};
AttentionRoom RoomForAttention(std::span<const SequenceRows> sequences, const AttentionShape& shape,
                               uint32_t positions, const AttentionLimits& limits);

}  // namespace tandem::cuda
