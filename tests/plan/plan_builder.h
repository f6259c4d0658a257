// Builds programs together with what the verifier would say of their values, for tests of costs and
// schedules that should not depend on plugins or the verifier.
//
//   PlanBuilder b(graph, 2);
//   ValueId x = b.Embed(d0, 0, all);  ...
#pragma once

#include <optional>
#include <vector>

#include "engine/base/check.h"
#include "engine/model/synthetic.h"
#include "engine/plan/cost.h"
#include "engine/plan/plan.h"
#include "engine/plan/verifier.h"
#include "engine/rig/rig.h"

namespace tandem::testing_plans {

// 2 layers, 4 KV heads of 16 with two query heads each, 8 MLP units of 32, 5 vocabulary units (the
// last one short: 300 = 4*64 + 44).
inline std::shared_ptr<const Model> SmallModel() {
  return MakeShapeOnlyModel(ParseSyntheticSpec(
      "h=128,l=2,heads=8,kv=4,hd=16,ffn=256,vocab=300,ctx=512,type=q8_0,embed=q8_0,tied=0,seed=1"));
}

// `n` equal cards; the link takes 5 us + 1 ns a byte, the host link 10 us + 0.5 ns a byte.
inline Rig SmallRig(uint32_t n, LinkKind kind = LinkKind::kNvlink) {
  Rig rig;
  rig.name = "small";
  DeviceSpec card;
  card.name = "card";
  card.memory = Bytes{uint64_t{1} << 30};
  card.memory_bytes_per_s = 1e9;
  card.flops = 1e11;
  card.launch_gap = Nanos{700};
  rig.devices.assign(n, card);
  rig.link.name = "wire";
  rig.link.kind = kind;
  rig.link.send.points = {{Bytes{0}, Nanos{5000}}, {Bytes{1000000}, Nanos{1005000}}};
  if (kind == LinkKind::kIdeal) {
    rig.link.send.points = {{Bytes{0}, Nanos{0}}, {Bytes{1}, Nanos{0}}};
  }
  rig.host_link.name = "slot";
  rig.host_link.kind = LinkKind::kHost;
  rig.host_link.send.points = {{Bytes{0}, Nanos{10000}}, {Bytes{1000000}, Nanos{510000}}};
  rig.host_memory = Bytes{uint64_t{1} << 30};
  return rig;
}

class PlanBuilder {
 public:
  PlanBuilder(const BlockGraph& graph, uint32_t devices, uint32_t microbatches = 1,
              MicrobatchKind kind = MicrobatchKind::kNone)
      : graph_(graph) {
    plan.n_devices = devices;
    program.microbatches = microbatches;
    program.microbatch_kind = kind;
  }

  Plan plan;  // without its programs: tests hand `program` in beside it
  Program program;
  ProgramInfo info;

  const BlockGraph& graph() const { return graph_; }

  ValueId Run(uint32_t block, UnitRange units, uint32_t device, uint32_t mb,
              std::optional<ValueId> norm) {
    Op op = MakeOp(OpKind::kRun, {device}, mb);
    op.block = BlockId{block};
    op.units = units;
    if (norm) op.in = {*norm};
    const Block& b = graph_.at(op.block);
    Meaning meaning = b.kind == BlockKind::kHead    ? Meaning::kLogits
                      : b.kind == BlockKind::kEmbed ? Meaning::kX
                                                    : Meaning::kY;
    ValueId out = Push(op, {MakeValue(device, mb, meaning, block, units)}).front();
    if (!units.empty()) info.weights.back() = {SourceOf(op)};
    return out;
  }
  ValueId Norm(uint32_t block, uint32_t device, uint32_t mb, ValueId x) {
    Op op = MakeOp(OpKind::kNorm, {device}, mb);
    op.block = BlockId{block};
    op.in = {x};
    ValueInfo value = MakeValue(device, mb, Meaning::kN, block, {0, 0});
    value.shard = info.values[x].shard;
    value.shards = info.values[x].shards;
    return Push(op, {value}).front();
  }
  ValueId Add(uint32_t block, uint32_t device, uint32_t mb, ValueId x, ValueId y) {
    Op op = MakeOp(OpKind::kAdd, {device}, mb);
    op.block = BlockId{block};
    op.in = {x, y};
    ValueInfo value = MakeValue(device, mb, Meaning::kX, block, {0, 0});
    value.shard = info.values[x].shard;
    value.shards = info.values[x].shards;
    return Push(op, {value}).front();
  }
  void Sample(uint32_t device, uint32_t mb, ValueId logits) {
    Op op = MakeOp(OpKind::kSample, {device}, mb);
    op.in = {logits};
    Push(op, {});
  }
  ValueId Transfer(ValueId value, uint32_t to) {
    ValueInfo moved = info.values[value];
    Op op = MakeOp(OpKind::kTransfer, {static_cast<uint32_t>(moved.device.value), to},
                   moved.microbatch);
    op.in = {value};
    moved.device = DeviceId{static_cast<int32_t>(to)};
    return Push(op, {moved}).front();
  }
  std::vector<ValueId> AllReduce(const std::vector<ValueId>& partials, Algorithm algorithm) {
    Op op = Collective(OpKind::kAllReduce, partials);
    op.algorithm = algorithm;
    std::vector<ValueInfo> outs;
    for (ValueId id : partials) outs.push_back(Whole(info.values[id]));
    return Push(op, outs);
  }
  std::vector<ValueId> ReduceScatter(const std::vector<ValueId>& partials) {
    Op op = Collective(OpKind::kReduceScatter, partials);
    std::vector<ValueInfo> outs;
    for (ValueId id : partials) {
      ValueInfo value = Whole(info.values[id]);
      value.shard = static_cast<uint32_t>(outs.size());
      value.shards = static_cast<uint32_t>(partials.size());
      outs.push_back(value);
    }
    return Push(op, outs);
  }
  std::vector<ValueId> AllGather(const std::vector<ValueId>& parts) {
    Op op = Collective(OpKind::kAllGather, parts);
    std::vector<ValueInfo> outs;
    for (ValueId id : parts) outs.push_back(Whole(info.values[id]));
    return Push(op, outs);
  }
  void Fetch(uint32_t block, UnitRange units, DeviceId from, uint32_t to, SlotId slot) {
    Op op = MakeOp(OpKind::kFetch, {}, 0);
    op.devices = {from, DeviceId{static_cast<int32_t>(to)}};
    op.block = BlockId{block};
    op.units = units;
    op.slot = slot;
    Push(op, {});
    contents_.resize(std::max<size_t>(contents_.size(), slot + 1));
    contents_[slot] = static_cast<uint32_t>(program.ops.size() - 1);
  }
  void KvMove(uint32_t block, UnitRange units, uint32_t from, uint32_t to, uint32_t mb) {
    Op op = MakeOp(OpKind::kKvMove, {from, to}, mb);
    op.block = BlockId{block};
    op.units = units;
    Push(op, {});
  }
  UnitRange All(uint32_t block) const { return graph_.at(BlockId{block}).AllUnits(); }
  void Resident(uint32_t block, UnitRange units, uint32_t device) {
    plan.places.push_back(Place{BlockId{block}, units, DeviceId{static_cast<int32_t>(device)}});
  }

 private:
  static Op MakeOp(OpKind kind, const std::vector<uint32_t>& devices, uint32_t mb) {
    Op op;
    op.kind = kind;
    op.microbatch = mb;
    for (uint32_t device : devices) op.devices.push_back(DeviceId{static_cast<int32_t>(device)});
    return op;
  }
  Op Collective(OpKind kind, const std::vector<ValueId>& in) const {
    Op op = MakeOp(kind, {}, info.values[in.front()].microbatch);
    op.in = in;
    for (ValueId id : in) op.devices.push_back(info.values[id].device);
    return op;
  }
  ValueInfo MakeValue(uint32_t device, uint32_t mb, Meaning meaning, uint32_t block,
                      UnitRange units) const {
    ValueInfo value;
    value.device = DeviceId{static_cast<int32_t>(device)};
    value.microbatch = mb;
    value.meaning = meaning;
    value.block = BlockId{block};
    value.units = units;
    return value;
  }
  ValueInfo Whole(ValueInfo value) const {
    value.units = graph_.at(value.block).AllUnits();
    value.shards = 1;
    value.shard = 0;
    return value;
  }
  // The last FETCH of all the units to the RUN's device; else they are resident.
  WeightSource SourceOf(const Op& run) const {
    WeightSource source{run.units, std::nullopt, 0};
    for (SlotId slot = 0; slot < contents_.size(); ++slot) {
      if (!contents_[slot]) continue;
      const Op& fetch = program.ops[*contents_[slot]];
      bool holds = fetch.block == run.block && fetch.units.Contains(run.units) &&
                   fetch.devices[1] == run.devices[0];
      if (holds) source = WeightSource{run.units, slot, *contents_[slot]};
    }
    return source;
  }
  std::vector<ValueId> Push(Op op, std::vector<ValueInfo> outs) {
    for (ValueInfo& value : outs) {
      value.def_op = static_cast<uint32_t>(program.ops.size());
      op.out.push_back(static_cast<ValueId>(info.values.size()));
      info.values.push_back(value);
    }
    std::vector<ValueId> ids = op.out;
    program.ops.push_back(std::move(op));
    info.weights.emplace_back();
    return ids;
  }

  const BlockGraph& graph_;
  std::vector<std::optional<uint32_t>> contents_;  // by slot: the FETCH that filled it
};

// Blocks [0, cut) on device 0, the rest on device 1; every microbatch through both.
inline PlanBuilder LayerSplit(const BlockGraph& graph, uint32_t cut, uint32_t microbatches,
                              MicrobatchKind kind = MicrobatchKind::kByChunk) {
  PlanBuilder b(graph, 2, microbatches, kind);
  for (uint32_t block = 0; block < graph.size(); ++block) {
    b.Resident(block, b.All(block), block < cut ? 0 : 1);
  }
  for (uint32_t mb = 0; mb < microbatches; ++mb) {
    ValueId x = b.Run(0, b.All(0), 0, mb, std::nullopt);
    for (uint32_t block = 1; block < graph.size(); ++block) {
      uint32_t device = block < cut ? 0 : 1;
      if (block == cut) x = b.Transfer(x, 1);
      ValueId y = b.Run(block, b.All(block), device, mb, b.Norm(block, device, mb, x));
      if (block + 1 == graph.size()) {
        b.Sample(device, mb, y);
      } else {
        x = b.Add(block, device, mb, x, y);
      }
    }
  }
  return b;
}

// Units of `block` cut in proportion to `shares`, at floor(units * sum of the shares before).
inline std::vector<UnitRange> Shares(const BlockGraph& graph, uint32_t block,
                                     const std::vector<uint32_t>& shares) {
  uint32_t total = 0;
  for (uint32_t share : shares) total += share;
  std::vector<UnitRange> ranges;
  uint32_t before = 0;
  uint32_t units = graph.at(BlockId{block}).units;
  for (uint32_t share : shares) {
    ranges.push_back(UnitRange{units * before / total, units * (before + share) / total});
    before += share;
  }
  return ranges;
}

// Every block shared out by `shares`, an all-reduce after each but the head, whose logits are
// gathered; sampled on device 0.
inline PlanBuilder TensorSplit(const BlockGraph& graph, const std::vector<uint32_t>& shares,
                               Algorithm algorithm) {
  uint32_t n = static_cast<uint32_t>(shares.size());
  PlanBuilder b(graph, n);
  std::vector<ValueId> x(n);
  for (uint32_t block = 0; block < graph.size(); ++block) {
    std::vector<UnitRange> ranges = Shares(graph, block, shares);
    std::vector<ValueId> y(n);
    for (uint32_t d = 0; d < n; ++d) {
      b.Resident(block, ranges[d], d);
      std::optional<ValueId> norm;
      if (block > 0) norm = b.Norm(block, d, 0, x[d]);
      y[d] = b.Run(block, ranges[d], d, 0, norm);
    }
    if (block + 1 == graph.size()) {
      b.Sample(0, 0, n > 1 ? b.AllGather(y)[0] : y[0]);
      break;
    }
    if (n > 1) y = b.AllReduce(y, algorithm);
    for (uint32_t d = 0; d < n; ++d) x[d] = block == 0 ? y[d] : b.Add(block, d, 0, x[d], y[d]);
  }
  return b;
}

// One device; blocks come from the host through two slots in turn, fetched one ahead.
inline PlanBuilder Offload(const BlockGraph& graph) {
  PlanBuilder b(graph, 1);
  uint64_t largest = 0;
  for (const Block& block : graph.blocks) {
    largest = std::max(largest, block.UnitBytes(block.AllUnits()).value);
  }
  b.plan.slots = {Slot{DeviceId{0}, Bytes{largest}}, Slot{DeviceId{0}, Bytes{largest}}};
  ValueId x = 0;
  b.Fetch(0, b.All(0), kHost, 0, 0);
  for (uint32_t block = 0; block < graph.size(); ++block) {
    uint32_t next = block + 1;
    if (next < graph.size()) b.Fetch(next, b.All(next), kHost, 0, next % 2);
    if (block == 0) {
      x = b.Run(0, b.All(0), 0, 0, std::nullopt);
      continue;
    }
    ValueId y = b.Run(block, b.All(block), 0, 0, b.Norm(block, 0, 0, x));
    if (next == graph.size()) {
      b.Sample(0, 0, y);
    } else {
      x = b.Add(block, 0, 0, x, y);
    }
  }
  return b;
}

}  // namespace tandem::testing_plans
