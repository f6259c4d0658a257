// Where weights are: resident places, and slots as a program fills them. See verifier.h.
#include <fmt/format.h>

#include <algorithm>

#include "engine/plan/verifier_internal.h"

namespace tandem {
namespace {

// Sorts, and joins ranges that overlap or touch.
void Normalise(std::vector<UnitRange>& ranges) {
  if (ranges.size() < 2) return;
  std::sort(ranges.begin(), ranges.end());
  size_t kept = 0;
  for (size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].begin <= ranges[kept].end) {
      ranges[kept].end = std::max(ranges[kept].end, ranges[i].end);
    } else {
      ranges[++kept] = ranges[i];
    }
  }
  ranges.resize(kept + 1);
}

// The end of the stretch of `ranges` that begins at or before `unit`; `unit` itself when there is
// none. REQUIRES: normalised.
uint32_t ReachFrom(const std::vector<UnitRange>& ranges, uint32_t unit) {
  for (UnitRange range : ranges) {
    if (range.begin <= unit && unit < range.end) return range.end;
  }
  return unit;
}

}  // namespace

WeightRules::WeightRules(const Plan& plan, const BlockGraph& graph, const VerifyOptions& options)
    : plan_(plan),
      graph_(graph),
      options_(options),
      resident_(size_t{plan.n_devices + 1} * graph.size()),
      used_(resident_.size()),
      slots_(plan.slots.size()),
      slot_lane_(plan.slots.size(), -1) {
  for (const Place& place : plan.places) {
    if (place.units.empty()) continue;
    auto row = static_cast<size_t>(place.device.value + 1);
    resident_[row * graph.size() + place.block.value].push_back(place.units);
  }
  for (auto& ranges : resident_) Normalise(ranges);
}

void WeightRules::BeginProgram(uint32_t lane) {
  lane_ = lane;
  for (auto& contents : slots_) contents.clear();
}

const std::vector<UnitRange>& WeightRules::Resident(DeviceId device, BlockId block) const {
  return resident_[static_cast<size_t>(device.value + 1) * graph_.size() + block.value];
}

void WeightRules::MarkUsed(DeviceId device, BlockId block, UnitRange units) {
  auto& used = used_[static_cast<size_t>(device.value + 1) * graph_.size() + block.value];
  if (used.empty() || used.back() != units) used.push_back(units);
}

Verdict WeightRules::Apply(const Op& op, uint32_t index, std::vector<WeightSource>& sources) {
  if (op.kind == OpKind::kRun) return Run(op, sources);
  if (op.kind == OpKind::kFetch) return Fetch(op, index);
  return std::nullopt;
}

// Covers the units from left to right, each time with the source that reaches furthest.
Verdict WeightRules::Run(const Op& op, std::vector<WeightSource>& sources) {
  DeviceId device = op.devices[0];
  uint32_t unit = op.units.begin;
  while (unit < op.units.end) {
    WeightSource best;
    uint32_t reach = std::min(ReachFrom(Resident(device, op.block), unit), op.units.end);
    for (SlotId slot = 0; slot < slots_.size(); ++slot) {
      if (plan_.slots[slot].device != device) continue;
      for (const Content& content : slots_[slot]) {
        bool holds = content.block == op.block && content.units.begin <= unit;
        uint32_t end = std::min(content.units.end, op.units.end);
        if (!holds || end <= reach) continue;
        reach = end;
        best.slot = slot;
        best.fetch_op = content.fetch_op;
      }
    }
    if (reach <= unit) {
      if (options_.Off(RuleOff::kResidence)) {
        ++unit;
        continue;
      }
      return Broken("locality",
                    fmt::format("run needs unit {} of b{} on {}: no place puts it there, "
                                "and no slot there holds it at this point",
                                unit, op.block.value, NameOf(device)));
    }
    best.units = {unit, reach};
    if (!best.slot) MarkUsed(device, op.block, best.units);
    sources.push_back(best);
    unit = reach;
  }
  return std::nullopt;
}

Verdict WeightRules::Fetch(const Op& op, uint32_t index) {
  const Slot& slot = plan_.slots[*op.slot];
  if (slot.device != op.devices[1]) {
    return Broken("locality", fmt::format("fetch to {} into slot s{}, which is on {}",
                                          NameOf(op.devices[1]), *op.slot, NameOf(slot.device)));
  }
  Bytes bytes = graph_.at(op.block).UnitBytes(op.units);
  if (bytes > slot.bytes) {
    return Broken("locality",
                  fmt::format("{} takes {} bytes, slot s{} has {}", NameOf(op.block, op.units),
                              bytes.value, *op.slot, slot.bytes.value));
  }
  if (!op.units.empty()) {
    uint32_t reach = ReachFrom(Resident(op.devices[0], op.block), op.units.begin);
    if (reach < op.units.end) {
      return Broken("locality", fmt::format("fetch needs unit {} of b{} on {}, where no place puts "
                                            "it (slots are not fetched from)",
                                            reach, op.block.value, NameOf(op.devices[0])));
    }
    MarkUsed(op.devices[0], op.block, op.units);
  }
  int64_t& lane = slot_lane_[*op.slot];
  if (lane >= 0 && lane != lane_) {
    return Broken("locality", fmt::format("slot s{} is filled by lane {} and by lane {}, which do "
                                          "not wait for each other",
                                          *op.slot, lane, lane_));
  }
  lane = lane_;
  auto& contents = slots_[*op.slot];
  if (!options_.Off(RuleOff::kSlotContent)) contents.clear();
  contents.push_back({op.block, op.units, index});
  return std::nullopt;
}

std::vector<std::string> WeightRules::Unused() const {
  std::vector<std::string> unused;
  for (size_t i = 0; i < resident_.size(); ++i) {
    if (resident_[i].empty()) continue;
    std::vector<UnitRange> used = used_[i];
    Normalise(used);
    for (UnitRange range : resident_[i]) {
      uint32_t unit = range.begin;
      while (unit < range.end && ReachFrom(used, unit) > unit) unit = ReachFrom(used, unit);
      if (unit >= range.end) continue;
      DeviceId device{static_cast<int32_t>(i / graph_.size()) - 1};
      BlockId block{static_cast<uint32_t>(i % graph_.size())};
      unused.push_back(fmt::format("{} is placed on {}, where nothing uses unit {}",
                                   NameOf(block, range), NameOf(device), unit));
    }
  }
  for (size_t slot = 0; slot < slot_lane_.size(); ++slot) {
    if (slot_lane_[slot] < 0) unused.push_back(fmt::format("slot s{} is never filled", slot));
  }
  return unused;
}

}  // namespace tandem
