#include "engine/plan/value_layout.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/plan/memory.h"

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

// Slot numbers below n that are m modulo `groups`.
uint32_t SlotsOf(uint32_t m, uint32_t groups, uint32_t n) {
  return m < n ? (n - m - 1) / groups + 1 : 0;
}

}  // namespace

void LayOutValues(std::span<const LaidValue> values, uint32_t n_devices, ValueLayout& layout) {
  layout.offsets.assign(values.size(), 0);
  layout.peak.assign(n_devices, 0);
  std::vector<uint32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return std::pair(values[a].def_op, a) < std::pair(values[b].def_op, b);
  });
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

std::vector<MicrobatchShape> LargestShapes(const Program& program, const PlanLimits& limits) {
  const bool prefill = program.kind == ProgramKind::kPrefill;
  const uint32_t step = prefill ? limits.max_step_tokens : limits.max_sequences;
  const uint32_t count = program.microbatches;
  std::vector<MicrobatchShape> shapes(count);
  for (uint32_t m = 0; m < count; ++m) {
    MicrobatchShape& shape = shapes[m];
    if (program.microbatch_kind == MicrobatchKind::kBySequence) {
      const uint32_t slots = SlotsOf(m, count, limits.max_sequences);
      shape.rows = prefill ? step : slots;
      shape.sampled = std::min(shape.rows, slots);
    } else {
      // Chunks are cut at floors, so any of them may have the larger count.
      shape.rows = (step + count - 1) / count;
      shape.sampled = std::min(shape.rows, limits.max_sequences);
    }
  }
  return shapes;
}

ValueLayout LargestLayout(const ProgramInfo& info, const BlockGraph& graph,
                          std::span<const MicrobatchShape> shapes, uint32_t n_devices) {
  std::vector<LaidValue> values;
  values.reserve(info.values.size());
  for (const ValueInfo& value : info.values) {
    const MicrobatchShape& shape = shapes[value.microbatch];
    values.push_back(
        LaidValue{.device = static_cast<uint32_t>(value.device.value),
                  .bytes = MostValueBytes(graph, value, shape.rows, shape.sampled).value,
                  .def_op = value.def_op,
                  .last_use = value.last_use});
  }
  ValueLayout layout;
  LayOutValues(values, n_devices, layout);
  return layout;
}

}  // namespace tandem
