#include "engine/plan/shared_dram.h"

#include <algorithm>

#include "engine/plan/dependencies.h"

namespace tandem {
namespace {

// What wants how much more, or less, from when on.
struct Change {
  Nanos at;
  size_t use = 0;
  bool begins = false;
};

std::vector<Change> ChangesOf(std::span<const DramUse> uses) {
  std::vector<Change> changes;
  for (size_t i = 0; i < uses.size(); ++i) {
    if (uses[i].when.empty()) continue;
    changes.push_back(Change{uses[i].when.begin, i, true});
    changes.push_back(Change{uses[i].when.end, i, false});
  }
  std::stable_sort(changes.begin(), changes.end(),
                   [](const Change& a, const Change& b) { return a.at < b.at; });
  return changes;
}

// What an op moves to or from the host's memory.
double BytesOf(const LaidStep& step, const Op& op) {
  const MicrobatchShape shape = ShapeFor(op, step.shape);
  if (IsCompute(op.kind)) {
    const bool here = step.rig.OnHost(op.devices[0]);
    return here ? CostOf(step.graph, op, shape).memory_bytes : 0;
  }
  double bytes = 0;
  for (const Hop& hop : HopsOf(step.graph, op, step.info, shape, step.plan.wire, step.rig)) {
    for (DeviceId end : {hop.src, hop.dst}) {
      if (step.rig.OnHost(end)) bytes += static_cast<double>(hop.bytes.value);
    }
  }
  return bytes;
}

}  // namespace

std::vector<Nanos> DramDelays(std::span<const DramUse> uses, double bytes_per_s, size_t n_ops) {
  std::vector<double> lost(n_ops);
  std::vector<size_t> under_way;
  Nanos since;
  for (const Change& change : ChangesOf(uses)) {
    double wanted = 0;
    for (size_t use : under_way) wanted += std::min(uses[use].bytes_per_s, bytes_per_s);
    if (wanted > bytes_per_s) {
      const double share = 1 - bytes_per_s / wanted;
      const auto stretch = static_cast<double>((change.at - since).value);
      for (size_t use : under_way) lost[uses[use].op] += stretch * share;
    }
    since = change.at;
    if (change.begins) {
      under_way.push_back(change.use);
    } else {
      std::erase(under_way, change.use);
    }
  }
  std::vector<Nanos> delays;
  delays.reserve(n_ops);
  for (double nanos : lost) delays.push_back(Nanos{static_cast<int64_t>(nanos + 0.5)});
  return delays;
}

const DeviceSpec* ProcessorInUse(const Program& program, const Rig& rig) {
  for (const Op& op : program.ops) {
    if (!IsCompute(op.kind) || !rig.OnHost(op.devices[0])) continue;
    return &rig.devices[static_cast<size_t>(op.devices[0].value)];
  }
  return nullptr;
}

std::vector<DramUse> DramUsesOf(const LaidStep& step, const Timeline& timeline,
                                std::span<const Nanos> delays) {
  std::vector<DramUse> uses;
  for (uint32_t i = 0; i < step.program.ops.size(); ++i) {
    const Op& op = step.program.ops[i];
    if (!DoesWork(step.graph, op, step.info, step.shape)) continue;
    const OpTiming& timing = timeline.ops[i];
    const bool computes = IsCompute(op.kind);
    const Interval when = computes ? Interval{timing.start + timing.launch, timing.release}
                                   : Interval{timing.wire, timing.end};
    const double seconds = (when.end - when.begin - delays[i]).Seconds();
    const double bytes = BytesOf(step, op);
    if (bytes == 0 || seconds <= 0) continue;
    const double wanted = bytes / seconds;
    // A fetch that began before the step did ran beside the end of one like it.
    const Nanos before = std::min(when.begin, Nanos{0}), until = std::min(when.end, Nanos{0});
    uses.push_back(DramUse{i, {before + timeline.length, until + timeline.length}, wanted});
    uses.push_back(DramUse{i, {std::max(when.begin, Nanos{0}), when.end}, wanted});
  }
  return uses;
}

}  // namespace tandem
