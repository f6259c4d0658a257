#include "engine/plan/shards.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "engine/model/panel_rows.h"

namespace tandem {
namespace {

constexpr uint64_t kCacheLine = 64;
constexpr uint64_t kMostPieces = 8;  // of a block: matrices and vectors, each on its own cache line

using ElemRange = std::pair<uint32_t, uint32_t>;

// Sorted, with touching and overlapping ranges joined.
std::vector<ElemRange> Joined(std::vector<ElemRange> ranges) {
  std::sort(ranges.begin(), ranges.end());
  std::vector<ElemRange> joined;
  for (const ElemRange& range : ranges) {
    if (!joined.empty() && range.first <= joined.back().second) {
      joined.back().second = std::max(joined.back().second, range.second);
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

ElemRange ElemsOf(const Block& block, UnitRange units) {
  return {block.ElemBegin(units), block.ElemEnd(units)};
}

void AppendResident(const Plan& plan, const BlockGraph& graph, std::vector<WeightShard>& shards) {
  std::map<std::pair<DeviceId, BlockId>, std::vector<ElemRange>> ranges;
  for (const Place& place : plan.places) {
    const ElemRange range = ElemsOf(graph.at(place.block), place.units);
    if (range.first == range.second) continue;
    ranges[{place.device, WeightsOf(graph, place.block)}].push_back(range);
  }
  std::map<BlockId, std::set<uint32_t>> host_cuts;
  for (const Op* fetch : FetchesOf(plan)) {
    if (!fetch->devices[0].IsHost()) continue;
    const ElemRange range = ElemsOf(graph.at(fetch->block), fetch->units);
    host_cuts[WeightsOf(graph, fetch->block)].insert({range.first, range.second});
  }
  for (const auto& [key, list] : ranges) {
    const auto& [device, block] = key;
    for (auto [begin, end] : Joined(list)) {
      if (device.IsHost()) {
        for (uint32_t cut : host_cuts[block]) {
          if (cut <= begin || cut >= end) continue;
          shards.push_back({device, block, begin, cut, false});
          begin = cut;
        }
      }
      shards.push_back({device, block, begin, end, false});
    }
  }
}

void AppendFetchCopies(const Plan& plan, const BlockGraph& graph,
                       std::vector<WeightShard>& shards) {
  // What is there already, by its elements alone.
  std::set<std::tuple<DeviceId, BlockId, uint32_t, uint32_t>> have;
  for (const WeightShard& shard : shards) {
    have.insert({shard.device, shard.block, shard.begin, shard.end});
  }
  for (const Op* fetch : FetchesOf(plan)) {
    const auto [begin, end] = ElemsOf(graph.at(fetch->block), fetch->units);
    const BlockId block = WeightsOf(graph, fetch->block);
    if (have.insert({fetch->devices[0], block, begin, end}).second) {
      shards.push_back({fetch->devices[0], block, begin, end, true});
    }
  }
}

}  // namespace

BlockId WeightsOf(const BlockGraph& graph, BlockId block) {
  return graph.tied && block == graph.head() ? BlockId{0} : block;
}

std::vector<const Op*> FetchesOf(const Plan& plan) {
  std::vector<const Op*> fetches;
  for (const Program& program : plan.programs) {
    for (const Op& op : program.ops) {
      if (op.kind == OpKind::kFetch) fetches.push_back(&op);
    }
  }
  return fetches;
}

std::vector<WeightShard> ShardsOf(const Plan& plan, const BlockGraph& graph) {
  std::vector<WeightShard> shards;
  AppendResident(plan, graph, shards);
  AppendFetchCopies(plan, graph, shards);
  return shards;
}

Bytes PackingBytes(const BlockGraph& graph, BlockId id, uint32_t begin, uint32_t end) {
  if (begin == end) return {};
  const Block& block = graph.at(id);
  const auto missing = [](uint64_t rows) {
    return (kMostPanelRows - rows % kMostPanelRows) % kMostPanelRows;
  };
  // A matrix has a row an element (a head's dimensions, for KV heads) or a row a hidden dimension.
  const uint64_t rows_per_elem =
      block.kind == BlockKind::kAttention ? graph.config.head_dim : uint64_t{1};
  const uint64_t elems = end - begin;
  const uint64_t elem_bytes = block.bytes_per_elem.value;
  const uint64_t hidden = graph.config.hidden;
  uint64_t bytes = kMostPieces * kCacheLine;
  bytes += (missing(elems * rows_per_elem) + rows_per_elem - 1) / rows_per_elem * elem_bytes;
  bytes += (missing(hidden) * elems * elem_bytes + hidden - 1) / hidden;
  return Bytes{bytes};
}

}  // namespace tandem
