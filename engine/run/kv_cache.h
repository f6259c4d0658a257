// The KV cache: pages of kPageTokens tokens, one page table a sequence, and on every device the
// share of each page that its own units fill. Page p of a lane is page p on all of that lane's
// devices.
//
// Admission reserves all pages that a request can need, so nothing is ever evicted.
//
//   PageAllocator pages(cache.n_pages());
//   if (pages.Take(PagesFor(tokens), table)) ...  pages.Give(table);
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/device/device.h"
#include "engine/model/block_graph.h"
#include "engine/plan/plan.h"
#include "kernels/ops.h"

namespace tandem {

inline uint32_t PagesFor(uint32_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

// Pages of one lane. Pages are handed out lowest first, so a run is repeatable.
class PageAllocator {
 public:
  explicit PageAllocator(uint32_t n_pages);
  // Appends `count` pages to `table`, or leaves it alone and says false.
  bool Take(uint32_t count, std::vector<int32_t>& table);
  void Give(std::vector<int32_t>& table);  // empties it
  uint32_t total() const { return total_; }
  uint32_t used() const { return total_ - static_cast<uint32_t>(free_.size()); }

 private:
  uint32_t total_;
  std::vector<int32_t> free_;  // a min-heap
};

// KV of consecutive units [units.begin, units.end) of one block on one device.
struct KvPiece {
  UnitRange units;
  KvView view;
};

// Which units of which block a device must hold, and where a piece must not cross a boundary: a run
// reads and writes whole pieces.
struct KvDemand {
  DeviceId device;
  BlockId block;
  UnitRange units;
};

class KvCache {
 public:
  // Every demand's bounds cut its device's pieces. `n_pages` pages for each piece.
  KvCache(const BlockGraph& graph, std::span<const KvDemand> demands, uint32_t n_pages,
          std::span<const std::unique_ptr<Device>> devices);

  uint32_t n_pages() const { return n_pages_; }
  // The pieces of a range that begins and ends at piece bounds, in order of units.
  std::span<const KvPiece> Pieces(DeviceId device, BlockId block, UnitRange units) const;

 private:
  struct Holding {
    DeviceId device;
    BlockId block;
    std::vector<KvPiece> pieces;
  };
  Holding& HoldingOf(DeviceId device, BlockId block);

  uint32_t n_pages_;
  std::vector<Holding> holdings_;
  std::vector<Buffer> buffers_;  // one a device that holds any
};

}  // namespace tandem
