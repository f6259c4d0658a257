#include "engine/run/rig_time.h"

#include <algorithm>
#include <cmath>

#include "engine/base/check.h"
#include "engine/plan/pricer.h"

namespace tandem {
namespace {

bool Computes(OpKind kind) {
  return kind == OpKind::kRun || kind == OpKind::kNorm || kind == OpKind::kAdd ||
         kind == OpKind::kSample;
}

bool BetweenDevices(const Op& op) {
  return !Computes(op.kind) &&
         std::none_of(op.devices.begin(), op.devices.end(), [](DeviceId d) { return d.IsHost(); });
}

}  // namespace

RigTimer::RigTimer(const RigTimerSetup& setup)
    : setup_(setup), measured_(setup.rig->is_this_machine && setup.clock == ClockKind::kWall) {
  if (measured_) return;
  const Plan& plan = *setup.plan;
  for (size_t i = 0; i < plan.programs.size(); ++i) {
    schedules_.emplace_back(*setup.graph, plan, plan.programs[i], setup.verified->programs[i],
                            setup.fuse_collectives);
  }
  if (setup.rig->is_this_machine || setup.op_times == OpTimes::kModelled) return;
  probe_ = std::make_unique<HostProbe>(*setup.pool, setup.arithmetic);

  const Program& decode = plan.program(ProgramKind::kDecode, 0);
  const StepShape shape = DecodeShape(decode, 1, 64);
  std::vector<Bytes> weights(setup.rig->size());
  for (const Op& op : decode.ops) {
    if (op.kind == OpKind::kRun && op.block.value != 0) {
      weights[static_cast<size_t>(op.devices[0].value)] +=
          setup.graph->at(op.block).UnitBytes(op.units);
    }
  }
  std::vector<double> factors;
  for (const Op& op : decode.ops) {
    if (!Computes(op.kind)) continue;
    const OpCost cost = CostOf(*setup.graph, op, ShapeFor(op, shape));
    const double here = HereSeconds(cost, op, weights);
    if (here <= 0) continue;
    const DeviceSpec& device = setup.rig->devices[static_cast<size_t>(op.devices[0].value)];
    factors.push_back(RooflineSeconds(cost, device) / here);
  }
  if (factors.empty()) return;
  const auto middle = factors.begin() + static_cast<ptrdiff_t>(factors.size() / 2);
  std::nth_element(factors.begin(), middle, factors.end());
  op_time_factor_ = *middle;
}

RigTimer::~RigTimer() = default;

double RigTimer::HereSeconds(const OpCost& cost, const Op& op,
                             std::span<const Bytes> step_weights) const {
  const bool weights = op.kind == OpKind::kRun && op.block.value != 0;
  const double working_set =
      weights ? static_cast<double>(step_weights[static_cast<size_t>(op.devices[0].value)].value)
              : cost.memory_bytes;
  return std::max(cost.flops / probe_->flops(),
                  cost.memory_bytes / probe_->bytes_per_s(working_set));
}

void RigTimer::ScaleTimes(const StepTrace& trace, std::span<const Bytes> step_weights,
                          StepReport& report) {
  const Program& program = *trace.program;
  const FusedOps& fused = schedules_[trace.program_index].fused();
  const std::vector<double> shares = TrafficShares(program, fused.In(trace.shape, *setup_.rig));
  const std::vector<double> shares_here = TrafficShares(program, fused.Pairs(trace.shape));
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    if (!Computes(op.kind) || trace.op_time[i].value == 0) continue;
    const OpCost alone = CostOf(*setup_.graph, op, ShapeFor(op, trace.shape));
    OpCost cost_here = alone, cost = alone;
    cost_here.memory_bytes *= shares_here[i];
    cost.memory_bytes *= shares[i];
    const double here = HereSeconds(cost_here, op, step_weights);
    const DeviceSpec& device = setup_.rig->devices[static_cast<size_t>(op.devices[0].value)];
    const double roof = RooflineSeconds(cost, device);
    // An op without arithmetic or traffic (a run over no units) costs nothing but its launch.
    if (here <= 0) {
      report.op_times[i] = Nanos{0};
      continue;
    }
    double scaled = trace.op_time[i].Seconds() * roof / here;
    if (scaled < roof) {
      scaled = roof;
      ++report.clipped_ops;
    }
    report.op_times[i] = NanosFromSeconds(scaled);
  }
}

void RigTimer::Lay(const StepTrace& trace, std::span<const Bytes> step_weights, Nanos wall,
                   TrafficLedger& ledger, StepReport& report) {
  const Program& program = *trace.program;
  const size_t n_ops = program.ops.size();
  report.clipped_ops = 0;
  report.op_times_raw.assign(n_ops, Nanos{0});
  for (size_t i = 0; i < n_ops; ++i) {
    if (Computes(program.ops[i].kind)) report.op_times_raw[i] = trace.op_time[i];
  }
  if (measured_) {
    report.op_times = report.op_times_raw;
    LayMeasured(trace, setup_.plan->n_devices, wall, report.timeline);
  } else {
    if (probe_ != nullptr) {
      report.op_times.assign(n_ops, Nanos{0});
      ScaleTimes(trace, step_weights, report);
      probe_->Interleave(wall);
    } else if (setup_.op_times == OpTimes::kModelled) {
      report.op_times =
          ModelledOpTimes(*setup_.graph, program, trace.shape, *setup_.rig, {},
                          schedules_[trace.program_index].fused().In(trace.shape, *setup_.rig));
    } else {
      report.op_times = report.op_times_raw;
    }
    report.timeline =
        schedules_[trace.program_index].Lay(trace.shape, *setup_.rig, report.op_times);
  }
  for (HopRow& row : ledger.rows()) {
    const OpTiming& timing = report.timeline.ops[row.op];
    row.start = timing.start;
    row.end = timing.end;
    row.exposed = timing.exposed;
  }
}

namespace {

// Where ops ran side by side: each device's intervals, one state at each instant.
void LayOverlapped(const StepTrace& trace, uint32_t n_devices, Nanos wall, Timeline& timeline) {
  const Program& program = *trace.program;
  // The devices' clocks and the host's may disagree by a little.
  timeline.length = std::max(wall, trace.length);
  timeline.ops.assign(program.ops.size(), OpTiming{});
  timeline.devices.clear();
  timeline.exposed_comm = Nanos{0};
  std::vector<DeviceParts> parts;
  for (uint32_t d = 0; d < n_devices; ++d) {
    parts.push_back(Attribute(trace.overlap.devices[d], timeline.length));
    const DeviceParts& p = parts.back();
    timeline.devices.push_back(DeviceAttribution{DeviceId{static_cast<int32_t>(d)}, p.compute,
                                                 p.launch, p.exposed_comm, p.wait, p.idle});
    timeline.exposed_comm = std::max(timeline.exposed_comm, p.exposed_comm);
  }
  std::vector<Interval> on_links;
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    const OpSpan& times = trace.overlap.ops[i];
    OpTiming& timing = timeline.ops[i];
    timing.start = times.begin;
    timing.release = timing.end = times.end;
    timing.wire = Computes(op.kind) ? times.end : times.begin;
    if (Computes(op.kind)) continue;
    if (BetweenDevices(op)) on_links.push_back({times.begin, times.end});
    std::vector<Interval> exposed;
    for (DeviceId device : op.devices) {
      if (device.IsHost()) continue;
      for (const Interval& bare : parts[static_cast<size_t>(device.value)].exposed) {
        exposed.push_back({std::max(bare.begin, times.begin), std::min(bare.end, times.end)});
      }
    }
    timing.exposed = UnionLength(exposed);
  }
  timeline.link_busy = UnionLength(on_links);
}

}  // namespace

void LayMeasured(const StepTrace& trace, uint32_t n_devices, Nanos wall, Timeline& timeline) {
  const Program& program = *trace.program;
  if (!trace.overlap.devices.empty()) {
    LayOverlapped(trace, n_devices, wall, timeline);
    return;
  }
  Check(wall >= trace.length, "attribution: a step is no shorter than its ops");
  timeline.length = wall;
  timeline.ops.assign(program.ops.size(), OpTiming{});
  timeline.devices.assign(n_devices, DeviceAttribution{});
  timeline.link_busy = Nanos{0};
  for (uint32_t d = 0; d < n_devices; ++d) {
    timeline.devices[d].device = DeviceId{static_cast<int32_t>(d)};
  }
  // Ops run one after the other here, so every device sees each of them once.
  Nanos all;
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    const Nanos time = trace.op_time[i];
    OpTiming& timing = timeline.ops[i];
    timing.start = trace.op_start[i];
    timing.wire = timing.start;
    timing.end = timing.start + time;
    all += time;
    const bool computes = Computes(op.kind);
    if (computes) timing.wire = timing.end;
    if (!computes) timing.exposed = time;
    if (BetweenDevices(op)) timeline.link_busy += time;
    for (DeviceId device : op.devices) {
      if (device.IsHost()) continue;
      DeviceAttribution& part = timeline.devices[static_cast<size_t>(device.value)];
      (computes ? part.compute : part.exposed_comm) += time;
    }
  }
  timeline.exposed_comm = Nanos{0};
  std::vector<bool> works(n_devices, false);
  for (const Op& op : program.ops) {
    for (DeviceId device : op.devices) {
      if (!device.IsHost()) works[static_cast<size_t>(device.value)] = true;
    }
  }
  for (DeviceAttribution& part : timeline.devices) {
    // A device of another lane waits for nothing here.
    if (works[static_cast<size_t>(part.device.value)]) {
      part.wait = all - part.compute - part.exposed_comm;
    }
    part.idle = wall - part.compute - part.exposed_comm - part.wait;
    timeline.exposed_comm = std::max(timeline.exposed_comm, part.exposed_comm);
  }
}

}  // namespace tandem
