#include "engine/run/value_layout.h"

#include <algorithm>
#include <numeric>

namespace tandem {
namespace {

uint64_t Aligned(uint64_t bytes) { return (bytes + kArenaAlign - 1) / kArenaAlign * kArenaAlign; }

struct Live {
  uint64_t begin = 0;
  uint64_t end = 0;
  uint32_t last_use = 0;
};

// The start of the tightest gap of `bytes` between live ranges (sorted by begin), or behind them.
uint64_t TightestGap(const std::vector<Live>& live, uint64_t bytes) {
  uint64_t best = 0;
  uint64_t best_size = UINT64_MAX;
  uint64_t cursor = 0;
  for (const Live& range : live) {
    const uint64_t size = range.begin - cursor;
    if (size >= bytes && size < best_size) {
      best = cursor;
      best_size = size;
    }
    cursor = range.end;
  }
  return best_size == UINT64_MAX ? cursor : best;
}

}  // namespace

void LayOutValues(std::span<const LaidValue> values, uint32_t n_devices, ValueLayout& layout) {
  layout.offsets.assign(values.size(), 0);
  layout.peak.assign(n_devices, 0);
  std::vector<uint32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return values[a].def_op < values[b].def_op; });
  std::vector<std::vector<Live>> live(n_devices);
  for (uint32_t id : order) {
    const LaidValue& value = values[id];
    if (value.bytes == 0) continue;
    std::vector<Live>& ranges = live[value.device];
    std::erase_if(ranges, [&](const Live& range) { return range.last_use < value.def_op; });
    const uint64_t bytes = Aligned(value.bytes);
    const uint64_t begin = TightestGap(ranges, bytes);
    layout.offsets[id] = begin;
    layout.peak[value.device] = std::max(layout.peak[value.device], begin + bytes);
    const Live range{begin, begin + bytes, value.last_use};
    ranges.insert(std::upper_bound(ranges.begin(), ranges.end(), range,
                                   [](const Live& a, const Live& b) { return a.begin < b.begin; }),
                  range);
  }
}

}  // namespace tandem
