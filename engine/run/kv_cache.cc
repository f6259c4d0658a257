#include "engine/run/kv_cache.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>

#include "engine/base/check.h"

namespace tandem {

PageAllocator::PageAllocator(uint32_t n_pages) : total_(n_pages), free_(n_pages) {
  std::iota(free_.begin(), free_.end(), 0);  // ascending: already a min-heap
}

bool PageAllocator::Take(uint32_t count, std::vector<int32_t>& table) {
  if (count > free_.size()) return false;
  for (uint32_t i = 0; i < count; ++i) {
    std::pop_heap(free_.begin(), free_.end(), std::greater<>());
    table.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void PageAllocator::Give(std::vector<int32_t>& table) {
  for (int32_t page : table) {
    free_.push_back(page);
    std::push_heap(free_.begin(), free_.end(), std::greater<>());
  }
  table.clear();
  Check(free_.size() <= total_, "kv: a page was given back twice");
}

KvCache::KvCache(const BlockGraph& graph, std::span<const KvDemand> demands, uint32_t n_pages,
                 std::span<const std::unique_ptr<Device>> devices)
    : n_pages_(n_pages) {
  for (const KvDemand& demand : demands) HoldingOf(demand.device, demand.block);
  for (Holding& holding : holdings_) {
    std::set<uint32_t> cuts;
    std::vector<UnitRange> held;
    for (const KvDemand& demand : demands) {
      if (demand.device != holding.device || demand.block != holding.block) continue;
      cuts.insert(demand.units.begin);
      cuts.insert(demand.units.end);
      held.push_back(demand.units);
    }
    const Block& block = graph.at(holding.block);
    for (auto it = cuts.begin(); it != cuts.end() && std::next(it) != cuts.end(); ++it) {
      const UnitRange units{*it, *std::next(it)};
      const bool wanted = std::any_of(held.begin(), held.end(),
                                      [&](UnitRange range) { return range.Contains(units); });
      if (!wanted) continue;
      KvPiece piece;
      piece.units = units;
      piece.view.kv_heads = block.ElemCount(units);
      piece.view.head_dim = graph.config.head_dim;
      piece.view.stride = block.KvBytesPerToken(units).value * kPageTokens;
      Check(piece.view.stride ==
                uint64_t{4} * kPageTokens * piece.view.kv_heads * piece.view.head_dim,
            "kv: a page holds f16 keys and values");
      holding.pieces.push_back(piece);
    }
  }
  for (const auto& device : devices) {
    Bytes total;
    for (const Holding& holding : holdings_) {
      if (holding.device != device->id()) continue;
      for (const KvPiece& piece : holding.pieces) total += Bytes{piece.view.stride * n_pages};
    }
    if (total.value == 0) continue;
    buffers_.push_back(device->Allocate(MemoryUse::kKv, total, "kv pages"));
    std::byte* at = buffers_.back().data();
    for (Holding& holding : holdings_) {
      if (holding.device != device->id()) continue;
      for (KvPiece& piece : holding.pieces) {
        piece.view.base = at;
        at += piece.view.stride * n_pages;
      }
    }
  }
}

KvCache::Holding& KvCache::HoldingOf(DeviceId device, BlockId block) {
  for (Holding& holding : holdings_) {
    if (holding.device == device && holding.block == block) return holding;
  }
  holdings_.push_back(Holding{device, block, {}});
  return holdings_.back();
}

std::span<const KvPiece> KvCache::Pieces(DeviceId device, BlockId block, UnitRange units) const {
  for (const Holding& holding : holdings_) {
    if (holding.device != device || holding.block != block) continue;
    const auto first = std::find_if(holding.pieces.begin(), holding.pieces.end(),
                                    [&](const KvPiece& p) { return p.units.begin >= units.begin; });
    const auto last = std::find_if(first, holding.pieces.end(),
                                   [&](const KvPiece& p) { return p.units.begin >= units.end; });
    return {first, last};
  }
  return {};
}

}  // namespace tandem
