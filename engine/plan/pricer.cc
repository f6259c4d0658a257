#include "engine/plan/pricer.h"

#include <algorithm>
#include <map>

#include "engine/base/check.h"

namespace tandem {
namespace {

constexpr double kKvShareOfMemory = 0.75;
constexpr double kAttentionShareOfCompute = 0.75;

constexpr double kOpError = 1.2;
constexpr double kTableError = 1.1;
constexpr double kLineError = 1.6;

// Which token shard a value is; one of one when it is whole.
struct Shard {
  uint32_t index = 0;
  uint32_t count = 1;
};

// The shards of a program's values, from the reduce-scatters that make them: NORM and ADD pass them
// on, everything else gives whole values.
std::map<ValueId, Shard> ShardsOf(const Program& program) {
  std::map<ValueId, Shard> shards;
  for (const Op& op : program.ops) {
    uint32_t index = 0;
    for (ValueId out : op.out) {
      if (op.kind == OpKind::kReduceScatter) {
        shards[out] = Shard{index++, static_cast<uint32_t>(op.out.size())};
      } else if (op.kind == OpKind::kNorm || op.kind == OpKind::kAdd ||
                 op.kind == OpKind::kTransfer) {
        auto known = shards.find(op.in.front());
        if (known != shards.end()) shards[out] = known->second;
      }
    }
  }
  return shards;
}

uint32_t PartOf(uint32_t rows, const Shard& shard) {
  uint64_t begin = uint64_t{rows} * shard.index / shard.count;
  uint64_t end = uint64_t{rows} * (shard.index + 1) / shard.count;
  return static_cast<uint32_t>(end - begin);
}

Nanos OpTime(const OpCost& cost, const DeviceSpec& device, double product_efficiency) {
  double flops = device.flops * device.compute_efficiency;
  double bytes = device.memory_bytes_per_s * device.memory_efficiency;
  double products = device.flops * product_efficiency;
  double seconds = std::max((cost.flops - cost.attention_flops) / products,
                            (cost.memory_bytes - cost.kv_bytes) / bytes) +
                   cost.kv_bytes / (kKvShareOfMemory * bytes) +
                   cost.attention_flops / (kAttentionShareOfCompute * flops);
  return NanosFromSeconds(seconds);
}

Nanos Scaled(Nanos time, double factor) {
  return Nanos{static_cast<int64_t>(static_cast<double>(time.value) * factor + 0.5)};
}

// A curve's known error: a table is measured, two points are a line through latency and bandwidth.
double ErrorOf(const TimeCurve& curve) {
  return curve.points.size() > 2 ? kTableError : kLineError;
}

void ScaleLink(LinkProfile& link, bool up) {
  for (TimeCurve* curve :
       {&link.send, &link.all_reduce, &link.send_replayed, &link.all_reduce_replayed}) {
    double factor = up ? ErrorOf(*curve) : 1 / ErrorOf(*curve);
    for (TimePoint& point : curve->points) point.time = Scaled(point.time, factor);
  }
}

// The step's length when everything takes longer (up), or less, by its known error.
Nanos LengthWithErrors(const ProgramSchedule& schedule, const StepShape& shape, const Rig& rig,
                       const std::vector<Nanos>& times, bool up) {
  Rig other = rig;
  ScaleLink(other.link, up);
  ScaleLink(other.host_link, up);
  double factor = up ? kOpError : 1 / kOpError;
  for (DeviceSpec& device : other.devices) {
    device.launch_gap = Scaled(device.launch_gap, factor);
    if (device.replay_gap) device.replay_gap = Scaled(*device.replay_gap, factor);
  }
  std::vector<Nanos> scaled = times;
  for (Nanos& time : scaled) time = Scaled(time, factor);
  return schedule.Lay(shape, other, scaled).length;
}

std::vector<uint32_t> CriticalPath(const Timeline& timeline) {
  std::vector<uint32_t> path;
  auto last = std::max_element(timeline.ops.begin(), timeline.ops.end(),
                               [](const OpTiming& a, const OpTiming& b) { return a.end < b.end; });
  if (last == timeline.ops.end()) return path;
  std::optional<uint32_t> at = static_cast<uint32_t>(last - timeline.ops.begin());
  for (; at; at = timeline.ops[*at].after) {
    if (timeline.ops[*at].start < timeline.ops[*at].end) path.push_back(*at);
  }
  std::reverse(path.begin(), path.end());
  return path;
}

}  // namespace

std::vector<Nanos> ModelledOpTimes(const BlockGraph& graph, const Program& program,
                                   const StepShape& shape, const Rig& rig,
                                   std::span<const double> product_efficiency,
                                   std::span<const uint32_t> runs_with) {
  const std::vector<double> shares = TrafficShares(program, runs_with);
  std::map<ValueId, Shard> shards = ShardsOf(program);
  std::vector<Nanos> times;
  times.reserve(program.ops.size());
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    OpCost cost;
    if (IsCompute(op.kind)) {
      MicrobatchShape rows = ShapeFor(op, shape);
      auto shard = op.in.empty() ? shards.end() : shards.find(op.in.front());
      if (shard != shards.end()) rows.rows = PartOf(rows.rows, shard->second);
      cost = CostOf(graph, op, rows);
      cost.memory_bytes *= shares[i];
    }
    size_t device =
        op.devices.empty() || op.devices[0].IsHost() ? 0 : static_cast<size_t>(op.devices[0].value);
    Check(device < rig.devices.size(), "pricer: a device that the rig does not have");
    times.push_back(OpTime(cost, rig.devices[device],
                           product_efficiency.empty() ? rig.devices[device].compute_efficiency
                                                      : product_efficiency[device]));
  }
  return times;
}

Price PriceStep(const BlockGraph& graph, const Plan& plan, const Program& program,
                const ProgramInfo& info, const StepShape& shape, const Rig& rig,
                const PriceOptions& options) {
  ProgramSchedule schedule(graph, plan, program, info, options.fuse_collectives);
  std::vector<Nanos> times = ModelledOpTimes(graph, program, shape, rig, options.product_efficiency,
                                             schedule.fused().In(shape, rig));
  Price price;
  price.timeline = schedule.Lay(shape, rig, times);
  // First come, first served on a link can turn a shorter op into a longer step: the interval still
  // holds what was priced.
  Nanos length = price.timeline.length;
  price.low = std::min(length, LengthWithErrors(schedule, shape, rig, times, false));
  price.high = std::max(length, LengthWithErrors(schedule, shape, rig, times, true));
  price.critical_path = CriticalPath(price.timeline);
  price.traffic = TrafficOf(graph, plan, program, info, shape, rig);
  return price;
}

}  // namespace tandem
