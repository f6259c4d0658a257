// Cuts a step's attention into tiles, and decides which folds run side by side.
//
// Thread rule: any thread; no state.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/attention.h"

namespace tandem::cuda {

struct AttentionPlan {
  std::vector<AttentionTile> tiles;  // what Attend runs: whole tiles, or one fold each
  std::vector<AttentionTile> joins;  // tiles whose folds run apart, with their partials
  std::vector<int32_t> pages;        // of all sequences, one after the other
  uint64_t partials = 0;             // states a KV head
};

// `blocks`: how many blocks keep the GPU busy. `most_partials`: states of all KV heads that may be
// kept. Late tiles come first: they see the most positions.
AttentionPlan PlanAttention(std::span<const SequenceRows> sequences, uint32_t group,
                            uint32_t kv_heads, uint32_t window, uint32_t blocks,
                            uint64_t most_partials);

// The same without the choice: whether folds run side by side is given.
AttentionPlan PlanTiles(std::span<const SequenceRows> sequences, uint32_t group, uint32_t window,
                        bool apart);

// The most that PlanTiles gives while sequences, of one row each, grow up to `positions`, and
// whether their folds should run side by side.
struct AttentionRoom {
  uint32_t tiles = 0;
  uint32_t joins = 0;
  bool apart = false;
};
AttentionRoom RoomForAttention(std::span<const SequenceRows> sequences, uint32_t group,
                               uint32_t kv_heads, uint32_t window, uint32_t positions,
                               uint32_t blocks, uint64_t most_partials);

}  // namespace tandem::cuda
