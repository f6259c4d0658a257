// What an op costs in arithmetic, memory traffic and link traffic, from shapes alone. The pricer turns
// it into time, the executor's ledger is checked against it, results/METRICS.md writes it as closed
// forms.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/block_graph.h"
#include "engine/plan/plan.h"
#include "engine/plan/verifier.h"
#include "engine/rig/rig.h"

namespace tandem {

// One microbatch of a step.
struct MicrobatchShape {
  uint32_t rows = 0;          // tokens that run
  uint32_t sampled = 0;       // rows whose logits are wanted
  uint64_t attended = 0;      // sum over rows of the positions each attends to (itself included)
  uint64_t kv_tokens = 0;     // sum over sequences of the positions read (context after the step)
};

// One step: as many entries as the program has microbatches.
struct StepShape {
  std::vector<MicrobatchShape> microbatches;
  uint32_t rows() const;
  uint32_t sampled() const;
};

// A prefill of `tokens` from an empty context with one row sampled; or one decode step of `sequences`
// at `context` tokens each. Cut into the program's microbatches as the engine does.
StepShape PrefillShape(const Program& program, uint32_t tokens);
StepShape DecodeShape(const Program& program, uint32_t sequences, uint32_t context);

struct OpCost {
  double flops = 0;         // multiply-adds count as two
  double memory_bytes = 0;  // device memory read and written: weights, KV, activations
};
OpCost CostOf(const BlockGraph& graph, const Op& op, const MicrobatchShape& shape);

// Time at a device's roof: max(flops / F, bytes / B), at efficiency 1.
double RooflineSeconds(const OpCost& cost, const DeviceSpec& device);

// One hop of a movement: `bytes` from src to dst. A host-staged hop between devices is two: src to
// host, host to dst.
struct Hop {
  DeviceId src;
  DeviceId dst;
  PathKind path = PathKind::kLocal;  // resolved, never kAuto
  Bytes bytes;
};
// All hops of an op, in a fixed order; empty for compute ops, and for a microbatch without rows
// (SAMPLE: ids to the host, 4 bytes a sampled row). `info` is the program's, `wire` the plan's.
std::vector<Hop> HopsOf(const BlockGraph& graph, const Op& op, const ProgramInfo& info,
                        const MicrobatchShape& shape, WireType wire, const Rig& rig);

// Traffic of a whole program summed per (src, dst, path).
struct TrafficRow {
  ProgramKind phase = ProgramKind::kPrefill;
  DeviceId src;
  DeviceId dst;
  PathKind path = PathKind::kLocal;
  Bytes bytes;
  uint32_t rows = 0;  // rows of the step
};
std::vector<TrafficRow> TrafficOf(const BlockGraph& graph, const Plan& plan,
                                  const Program& program, const ProgramInfo& info,
                                  const StepShape& shape, const Rig& rig);

}  // namespace tandem
