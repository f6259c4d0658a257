// The pieces of weights that a plan puts into each memory: what the memory table counts and what
// the executor packs, told once.
//
// Adjacent places of a block on one device are one shard, so that a run over any part of them is
// one product. The host runs nothing: its places are cut where fetches begin and end, for a packed
// matrix can only be moved whole. A fetch whose source shard is larger than what it takes gets a
// copy of its own beside it. With a tied embedding HEAD and EMBED name the same rows of one table.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/block_graph.h"
#include "engine/plan/plan.h"

namespace tandem {

struct WeightShard {
  DeviceId device;
  BlockId block;       // EMBED for a tied HEAD
  uint32_t begin = 0;  // elements of the block
  uint32_t end = 0;
  bool fetch_only = false;  // a copy made for fetches; runs do not read it
  bool operator==(const WeightShard&) const = default;
};

// The block whose weights a block reads.
BlockId WeightsOf(const BlockGraph& graph, BlockId block);

// Every fetch of every program, in order.
std::vector<const Op*> FetchesOf(const Plan& plan);

// By device and block; a fetch's own copies come last.
std::vector<WeightShard> ShardsOf(const Plan& plan, const BlockGraph& graph);

// The most that packing elements [begin, end) adds to their stored bytes: each matrix begins on a
// cache line, and rows are packed in panels of up to kMostPanelRows, the last of which may not be
// full.
Bytes PackingBytes(const BlockGraph& graph, BlockId block, uint32_t begin, uint32_t end);

}  // namespace tandem
