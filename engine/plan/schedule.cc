// The simulation: ops become ready in the order of time, take their links, and let others start;
// then every device's time is attributed.
#include "engine/plan/schedule.h"

#include <algorithm>
#include <map>
#include <queue>
#include <utility>

#include "engine/base/check.h"
#include "engine/plan/attribution.h"
#include "engine/plan/shared_dram.h"

namespace tandem {
namespace {

using Link = std::pair<DeviceId, DeviceId>;

constexpr Nanos kLongAgo{INT64_MIN / 4};

// How often a step is laid again for what its delays delay.
constexpr int kDramPasses = 6;

// Until when each directed link is taken, and by which op.
class Links {
 public:
  explicit Links(const Rig& rig) : rig_(rig) {}

  struct Use {
    Nanos until = kLongAgo;
    std::optional<uint32_t> by;
  };

  const Use& Of(DeviceId src, DeviceId dst) { return uses_[Key(src, dst)]; }
  void Take(DeviceId src, DeviceId dst, Nanos until, uint32_t op) {
    Use& use = uses_[Key(src, dst)];
    if (until >= use.until) use = Use{until, op};
  }

 private:
  // What is on the host shares the cards' links to it.
  Link Key(DeviceId src, DeviceId dst) const {
    const bool host = rig_.OnHost(src) || rig_.OnHost(dst);
    if (rig_.OnHost(src)) src = kHost;
    if (rig_.OnHost(dst)) dst = kHost;
    const bool full = host ? rig_.host_link.full_duplex : rig_.link.full_duplex;
    return full || src < dst ? Link{src, dst} : Link{dst, src};
  }

  const Rig& rig_;
  std::map<Link, Use> uses_;
};

// Wire time of a collective from when all ranks and links are ready.
Nanos CollectiveTime(const Rig& rig, const Op& op, WireType wire, uint64_t elements,
                     const std::vector<Hop>& hops, MoveLaunch launch) {
  uint32_t ranks = static_cast<uint32_t>(op.devices.size());
  Bytes largest;
  for (const Hop& hop : hops) largest = std::max(largest, hop.bytes);
  if (op.kind != OpKind::kAllReduce) {
    return rig.ExchangeTime(ranks, largest, op.path, launch);
  }
  Bytes whole = WireBytes(wire, elements);
  if (op.algorithm != Algorithm::kTwoShot) {
    return ranks == 2 ? rig.AllReduceTime(2, whole, op.path, launch)
                      : rig.ExchangeTime(ranks, whole, op.path, launch);
  }
  // For two devices a measured curve says what an all-reduce takes, whichever way it went.
  if (ranks > 2 || !rig.link.AllReduces(launch).points.empty()) {
    return rig.AllReduceTime(ranks, whole, op.path, launch);
  }
  Nanos phase = rig.ExchangeTime(ranks, largest, op.path, launch);
  return phase + phase;
}

bool MovesBetweenDevices(const Op& op) {
  if (IsCompute(op.kind)) return false;
  return std::none_of(op.devices.begin(), op.devices.end(), [](DeviceId d) { return d.IsHost(); });
}

// A FETCH of the step, and when it began: before the step's start.
struct HeadStart {
  uint32_t op = 0;
  Nanos begin;
};

// One step being laid.
class Simulation {
 public:
  Simulation(const BlockGraph& graph, const Plan& plan, const Program& program,
             const ProgramInfo& info, const StepShape& shape, const Rig& rig,
             std::span<const Nanos> compute_times,
             const std::vector<std::vector<Dependency>>& dependencies,
             std::span<const uint32_t> runs_with, std::span<const HeadStart> head_starts,
             std::span<const Nanos> delays)
      : graph_(graph),
        plan_(plan),
        program_(program),
        info_(info),
        shape_(shape),
        rig_(rig),
        compute_times_(compute_times),
        dependencies_(dependencies),
        runs_with_(runs_with),
        delays_(delays),
        links_(rig),
        replays_(ReplaysStep(program, shape, rig)),
        ready_(program.ops.size()) {
    timeline_.ops.resize(program.ops.size());
    for (const HeadStart& head : head_starts) ready_[head.op] = head.begin;
  }

  Timeline Run() {
    Simulate();
    AttributeDevices();
    return std::move(timeline_);
  }

  // How long before the end of a step like this one the next one's first fetches can begin: when
  // the slot, the queue and the link are free.
  std::vector<HeadStart> RunForHeadStarts(std::span<const LeadFetch> leads) {
    Simulate();
    std::vector<HeadStart> heads;
    for (const LeadFetch& lead : leads) {
      const Op& op = program_.ops[lead.op];
      const DeviceId device = op.devices[1];
      Nanos begin = std::max(timeline_.ops[lead.last_use].end, links_.Of(kHost, device).until);
      begin = std::max(begin, QueueFree(device, QueueOn(op, 1)));
      if (begin >= timeline_.length) continue;
      heads.push_back(HeadStart{lead.op, begin - timeline_.length});
      const Bytes bytes = graph_.at(op.block).UnitBytes(op.units);
      links_.Take(kHost, device, begin + rig_.HopTime(kHost, device, bytes) + delays_[lead.op],
                  lead.op);
    }
    return heads;
  }

 private:
  // When an op let go of what `kind` stands for: SAMPLE frees its queue before its ids are home.
  Nanos ReleaseOf(const Dependency& d) const {
    return d.kind == DependencyKind::kQueue ? timeline_.ops[d.op].release : timeline_.ops[d.op].end;
  }

  // Ops in the order in which they become ready, ties by list order: who is ready first gets a link
  // first. An op that becomes ready does so no earlier than the op that made it so.
  void Simulate() {
    const size_t n = program_.ops.size();
    std::vector<uint32_t> missing(n);
    std::vector<std::vector<uint32_t>> followers(n);
    using Ready = std::pair<Nanos, uint32_t>;
    std::priority_queue<Ready, std::vector<Ready>, std::greater<>> queue;
    for (uint32_t i = 0; i < n; ++i) {
      missing[i] = static_cast<uint32_t>(dependencies_[i].size());
      for (const Dependency& d : dependencies_[i]) followers[d.op].push_back(i);
      if (missing[i] == 0) queue.emplace(ready_[i], i);
    }
    size_t done = 0;
    while (!queue.empty()) {
      auto [ready, i] = queue.top();
      queue.pop();
      Place(i, ready);
      timeline_.length = std::max(timeline_.length, timeline_.ops[i].end);
      ++done;
      for (uint32_t follower : followers[i]) {
        if (--missing[follower] > 0) continue;
        queue.emplace(ReadyTime(follower), follower);
      }
    }
    Check(done == n, "schedule: a program whose ops wait in a circle");
  }

  Nanos ReadyTime(uint32_t i) {
    Nanos ready = ready_[i];
    for (const Dependency& d : dependencies_[i]) {
      Nanos release = ReleaseOf(d);
      if (release < ready || (release == ready && timeline_.ops[i].after)) continue;
      ready = release;
      timeline_.ops[i].after = d.op;
    }
    return ready;
  }

  // NCCL's collectives and moves of KV are asked for between recordings.
  MoveLaunch LaunchOf(const Op& op) const {
    const bool apart = op.kind == OpKind::kKvMove || op.path == PathKind::kNccl;
    return replays_ && !apart ? MoveLaunch::kReplayed : MoveLaunch::kEager;
  }

  void Place(uint32_t i, Nanos ready) {
    const Op& op = program_.ops[i];
    OpTiming& timing = timeline_.ops[i];
    ready_[i] = ready;
    timing.start = timing.wire = timing.release = timing.end = ready;
    if (!DoesWork(graph_, op, info_, shape_)) return;
    MicrobatchShape shape = ShapeFor(op, shape_);
    if (IsCompute(op.kind)) {
      const DeviceSpec& device = rig_.devices[static_cast<size_t>(op.devices[0].value)];
      if (runs_with_[i] == kNoOp) {
        timing.launch = replays_ && device.replay_gap ? *device.replay_gap : device.launch_gap;
      }
      timing.wire = timing.release = timing.end =
          ready + timing.launch + compute_times_[i] + delays_[i];
    }
    std::vector<Hop> hops = HopsOf(graph_, op, info_, shape, plan_.wire, rig_);
    if (hops.empty()) return;
    if (op.kind == OpKind::kAllReduce || op.kind == OpKind::kReduceScatter ||
        op.kind == OpKind::kAllGather) {
      PlaceCollective(i, hops, ValueElements(graph_, info_.values[op.in[0]], shape));
    } else {
      PlaceMessage(i, hops);
    }
    if (!IsCompute(op.kind)) {
      timing.start = timing.wire;
      timing.release = timing.end;
    }
  }

  // When the last op of a queue lets go of it.
  Nanos QueueFree(DeviceId device, QueueKind queue) const {
    Nanos free;
    for (uint32_t i = 0; i < program_.ops.size(); ++i) {
      const Op& op = program_.ops[i];
      for (size_t d = 0; d < op.devices.size(); ++d) {
        if (op.devices[d] != device || QueueOn(op, d) != queue) continue;
        free = std::max(free, timeline_.ops[i].release);
      }
    }
    return free;
  }

  // `timing.wire` moves to when the link is free.
  void WaitForLink(OpTiming& timing, DeviceId src, DeviceId dst) {
    const Links::Use& use = links_.Of(src, dst);
    if (use.until <= timing.wire) return;
    timing.wire = use.until;
    timing.after = use.by;
  }

  void PlaceMessage(uint32_t i, const std::vector<Hop>& hops) {
    OpTiming& timing = timeline_.ops[i];
    const Hop& first = hops.front();
    const MoveLaunch launch = LaunchOf(program_.ops[i]);
    const Nanos delay = IsCompute(program_.ops[i].kind) ? Nanos{0} : delays_[i];
    // SAMPLE's ids wait for the link after its compute: what let the op start stays what it was.
    std::optional<uint32_t> after = timing.after;
    WaitForLink(timing, first.src, first.dst);
    if (IsCompute(program_.ops[i].kind)) timing.after = after;
    if (hops.size() == 1) {
      timing.end = timing.wire + rig_.HopTime(first.src, first.dst, first.bytes, launch) + delay;
      links_.Take(first.src, first.dst, timing.end, i);
      return;
    }
    const Hop& second = hops.back();
    StagedTime staged = rig_.StagedHopTime(first.bytes, launch);
    Nanos down = std::max(timing.wire + (staged.total - staged.hop),
                          links_.Of(second.src, second.dst).until);
    timing.end = down + staged.hop + delay;
    links_.Take(first.src, first.dst, timing.wire + staged.hop, i);
    links_.Take(second.src, second.dst, timing.end, i);
  }

  void PlaceCollective(uint32_t i, const std::vector<Hop>& hops, uint64_t elements) {
    OpTiming& timing = timeline_.ops[i];
    for (const Hop& hop : hops) WaitForLink(timing, hop.src, hop.dst);
    const Op& op = program_.ops[i];
    timing.end = timing.wire + CollectiveTime(rig_, op, plan_.wire, elements, hops, LaunchOf(op)) +
                 delays_[i];
    for (const Hop& hop : hops) links_.Take(hop.src, hop.dst, timing.end, i);
  }

  // From when all that device makes itself for op i is there until the rest is.
  Interval WaitOf(uint32_t i, DeviceId device) const {
    Nanos own;
    for (const Dependency& d : dependencies_[i]) {
      const Op& before = program_.ops[d.op];
      bool local = IsCompute(before.kind) && before.devices[0] == device;
      bool queue =
          d.kind == DependencyKind::kQueue &&
          std::find(before.devices.begin(), before.devices.end(), device) != before.devices.end();
      if (local || queue) own = std::max(own, ReleaseOf(d));
    }
    return Interval{own, ready_[i]};
  }

  void AttributeDevices() {
    std::vector<DeviceIntervals> intervals(rig_.size());
    std::vector<Interval> between;
    for (uint32_t i = 0; i < program_.ops.size(); ++i) {
      const Op& op = program_.ops[i];
      const OpTiming& timing = timeline_.ops[i];
      for (DeviceId device : op.devices) {
        if (device.IsHost()) continue;
        DeviceIntervals& own = intervals[static_cast<size_t>(device.value)];
        own.wait.push_back(WaitOf(i, device));
        // The sampled ids' way to the host is the step's own round trip, the same under every
        // split: it counts with the launches, so that link shares speak of links that a split uses.
        bool ids = op.kind == OpKind::kSample;
        (ids ? own.launch : own.wire)
            .push_back(Interval{std::max(timing.wire, Nanos{0}), timing.end});
        if (!IsCompute(op.kind)) continue;
        own.launch.push_back(Interval{timing.start, timing.start + timing.launch});
        own.compute.push_back(Interval{timing.start + timing.launch, timing.release});
      }
      if (MovesBetweenDevices(op)) between.push_back(Interval{timing.wire, timing.end});
    }
    timeline_.link_busy = UnionLength(between);
    std::vector<DeviceParts> parts;
    for (uint32_t d = 0; d < rig_.size(); ++d) {
      parts.push_back(Attribute(intervals[d], timeline_.length));
      const DeviceParts& p = parts.back();
      timeline_.devices.push_back(DeviceAttribution{DeviceId{static_cast<int32_t>(d)}, p.compute,
                                                    p.launch, p.exposed_comm, p.wait, p.idle});
      timeline_.exposed_comm = std::max(timeline_.exposed_comm, p.exposed_comm);
    }
    AttributeOps(parts);
  }

  void AttributeOps(const std::vector<DeviceParts>& parts) {
    for (uint32_t i = 0; i < program_.ops.size(); ++i) {
      OpTiming& timing = timeline_.ops[i];
      if (timing.wire >= timing.end) continue;
      std::vector<Interval> exposed;
      for (DeviceId device : program_.ops[i].devices) {
        if (device.IsHost()) continue;
        const std::vector<Interval>& all = parts[static_cast<size_t>(device.value)].exposed;
        auto from = std::partition_point(all.begin(), all.end(), [&](const Interval& interval) {
          return interval.end <= timing.wire;
        });
        for (; from != all.end() && from->begin < timing.end; ++from) {
          exposed.push_back(
              Interval{std::max(from->begin, timing.wire), std::min(from->end, timing.end)});
        }
      }
      timing.exposed = UnionLength(exposed);
    }
  }

  const BlockGraph& graph_;
  const Plan& plan_;
  const Program& program_;
  const ProgramInfo& info_;
  const StepShape& shape_;
  const Rig& rig_;
  std::span<const Nanos> compute_times_;
  const std::vector<std::vector<Dependency>>& dependencies_;
  std::span<const uint32_t> runs_with_;
  std::span<const Nanos> delays_;  // by op: what it takes longer for others' use of the memory
  Links links_;
  bool replays_;              // whether the step is a replay
  std::vector<Nanos> ready_;  // when an op's dependencies were met; before that, no sooner than
  Timeline timeline_;
};

}  // namespace

bool RecordsSteps(const Program& program) {
  return program.kind == ProgramKind::kDecode &&
         std::none_of(program.ops.begin(), program.ops.end(),
                      [](const Op& op) { return op.kind == OpKind::kFetch; });
}

bool ReplaysStep(const Program& program, const StepShape& shape, const Rig& rig) {
  const auto on_host = [&](const Op& op) {
    return std::ranges::any_of(op.devices,
                               [&](DeviceId d) { return !d.IsHost() && rig.OnHost(d); });
  };
  return RecordsSteps(program) && shape.rows() <= kMostRecordedRows &&
         std::ranges::none_of(program.ops, on_host);
}

ProgramSchedule::ProgramSchedule(const BlockGraph& graph, const Plan& plan, const Program& program,
                                 const ProgramInfo& info, bool fuse_collectives)
    : graph_(graph),
      plan_(plan),
      program_(program),
      info_(info),
      dependencies_(DependenciesOf(graph, program, info)),
      leads_(LeadFetchesOf(plan, program, info)),
      fused_(graph, plan, program, info, fuse_collectives) {}

Timeline ProgramSchedule::Lay(const StepShape& shape, const Rig& rig,
                              std::span<const Nanos> compute_times) const {
  Check(compute_times.size() == program_.ops.size(), "schedule: one time an op");
  Check(rig.size() >= plan_.n_devices, "schedule: a rig with fewer devices than the plan");
  const std::vector<uint32_t> runs_with = fused_.In(shape, rig);
  std::vector<Nanos> delays(program_.ops.size());
  const auto simulation = [&](std::span<const HeadStart> heads) {
    return Simulation(graph_, plan_, program_, info_, shape, rig, compute_times, dependencies_,
                      runs_with, heads, delays);
  };
  const auto lay = [&] {
    if (leads_.empty() || shape.rows() == 0) return simulation({}).Run();
    const std::vector<HeadStart> heads = simulation({}).RunForHeadStarts(leads_);
    return simulation(heads).Run();
  };
  Timeline timeline = lay();
  const DeviceSpec* processor = ProcessorInUse(program_, rig);
  const LaidStep step{graph_, plan_, program_, info_, shape, rig, compute_times};
  for (int pass = 0; processor != nullptr && pass < kDramPasses; ++pass) {
    std::vector<Nanos> found = DramDelays(DramUsesOf(step, timeline, delays),
                                          processor->memory_bytes_per_s, program_.ops.size());
    if (found == delays) break;
    delays = std::move(found);
    timeline = lay();
  }
  return timeline;
}

Timeline LaySchedule(const BlockGraph& graph, const Plan& plan, const Program& program,
                     const ProgramInfo& info, const StepShape& shape, const Rig& rig,
                     std::span<const Nanos> compute_times, bool fuse_collectives) {
  return ProgramSchedule(graph, plan, program, info, fuse_collectives)
      .Lay(shape, rig, compute_times);
}

}  // namespace tandem
