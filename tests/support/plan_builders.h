// Plans written in test code, so that tests of plans, prices and executors need no plugin: the
// splits tandem ships and some it does not yet. Also the tiny block graphs they are tried on.
//
//   BlockGraph graph = TinyGraph({.kv_heads = 3});
//   Plan plan = TensorSplitPlan(graph, {2, 1});
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/block_graph.h"
#include "engine/plan/plan.h"
#include "engine/rig/rig.h"

namespace tandem::testing {

// A graph whose units may be uneven: the last MLP and vocabulary units are short when the elements
// do not divide. Weights are f32; nothing here depends on engine/model's way of cutting.
struct TinyShape {
  uint32_t layers = 2;
  uint32_t kv_heads = 2;  // units of an ATTENTION block, one head each
  uint32_t ffn = 5;
  uint32_t ffn_per_unit = 2;
  uint32_t vocab = 7;
  uint32_t vocab_per_unit = 2;
  uint32_t hidden = 4;
  uint32_t head_dim = 2;
  bool tied = false;
};
BlockGraph TinyGraph(const TinyShape& shape);

// CPU devices of unlimited memory with local links.
Rig TestRig(uint32_t devices);

// Writes a plan op by op, with ids in order.
class PlanWriter {
 public:
  // A value and what the next op needs to know of it.
  struct Value {
    ValueId id = 0;
    uint32_t device = 0;
    uint32_t microbatch = 0;
  };

  PlanWriter(const BlockGraph& graph, std::string name, uint32_t devices, uint32_t lanes = 1);

  void Place(uint32_t block, UnitRange units, DeviceId device);
  void PlaceAll(DeviceId device);
  SlotId AddSlot(uint32_t device, Bytes bytes);
  void Begin(ProgramKind kind, uint32_t lane = 0, uint32_t microbatches = 1,
             MicrobatchKind microbatch_kind = MicrobatchKind::kNone);

  Value Embed(UnitRange units, uint32_t device, uint32_t microbatch = 0);
  Value Norm(uint32_t block, Value x);
  Value Run(uint32_t block, UnitRange units, Value n);
  Value Add(uint32_t block, Value x, Value y);
  void Sample(Value logits);
  std::vector<Value> AllReduce(const std::vector<Value>& parts, Algorithm algorithm);
  std::vector<Value> ReduceScatter(const std::vector<Value>& parts);
  std::vector<Value> AllGather(const std::vector<Value>& parts);
  Value Transfer(Value value, uint32_t to);
  void Fetch(uint32_t block, UnitRange units, DeviceId from, SlotId slot);
  void KvMove(uint32_t block, UnitRange units, uint32_t microbatch, uint32_t from, uint32_t to);

  // NORM, RUN of all units and ADD of one block.
  Value Whole(uint32_t block, Value x);
  // All blocks on one device, sampled.
  void Chain(uint32_t device, uint32_t microbatch = 0);

  const BlockGraph& graph() const { return graph_; }
  UnitRange All(uint32_t block) const { return graph_.blocks[block].AllUnits(); }
  uint32_t head() const { return graph_.head().value; }
  Plan Take() { return std::move(plan_); }

 private:
  std::vector<Value> Collective(OpKind kind, const std::vector<Value>& parts, Algorithm algorithm);
  Op& Append(OpKind kind, std::vector<DeviceId> devices, uint32_t microbatch);
  Value Give(Op& op, uint32_t device);

  const BlockGraph& graph_;
  Plan plan_;
  ValueId next_ = 0;
};

// units cut at floor(units * (share_0 + ... + share_d) / sum).
std::vector<UnitRange> CutByShares(uint32_t units, const std::vector<double>& shares);

Plan SinglePlan(const BlockGraph& graph);
Plan ReplicasPlan(const BlockGraph& graph, uint32_t devices);
// `microbatches` chunks in prefill, as many groups of sequences in decode.
Plan LayerSplitPlan(const BlockGraph& graph, uint32_t devices, uint32_t microbatches);
Plan TensorSplitPlan(const BlockGraph& graph, const std::vector<double>& shares,
                     Algorithm algorithm = Algorithm::kOneShot);
// Weights on the host, two slots, the next block fetched while one runs.
Plan OffloadPlan(const BlockGraph& graph);
Plan SequenceParallelPlan(const BlockGraph& graph, const std::vector<double>& shares);
// Each device holds its share of every block, gathers the rest, and runs its own sequences.
Plan WeightGatherPlan(const BlockGraph& graph, uint32_t devices);
// Prefill on device 0, decode on device 1.
Plan DisaggregatePlan(const BlockGraph& graph);
// Attention on every device, MLPs split.
Plan ReplicatedAttentionPlan(const BlockGraph& graph, uint32_t devices, uint32_t microbatches);

}  // namespace tandem::testing
