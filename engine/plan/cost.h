// What an op costs in arithmetic, memory traffic and link traffic, from shapes alone. The pricer
// turns it into time, the executor's ledger is checked against it, results/METRICS.md writes it as
// closed forms.
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
  uint32_t rows = 0;       // tokens that run
  uint32_t sampled = 0;    // rows whose logits are wanted
  uint64_t attended = 0;   // sum over rows of the positions each attends to (itself included)
  uint64_t kv_tokens = 0;  // sum over sequences of the positions read (context after the step)
};

// One step: as many entries as the program has microbatches.
struct StepShape {
  std::vector<MicrobatchShape> microbatches;
  uint32_t rows() const;
  uint32_t sampled() const;
};

// The shape an op sees: its microbatch's; for FETCH, which serves all of them, their sum.
MicrobatchShape ShapeFor(const Op& op, const StepShape& shape);

// Elements of a value: its rows (the sampled ones for the norm of HEAD and for logits; a shard's
// share of them) times hidden, or times the vocabulary rows of its units for logits.
uint64_t ValueElements(const BlockGraph& graph, const ValueInfo& value,
                       const MicrobatchShape& shape);

// Whether an op has anything to do: not for a microbatch without rows, nor HEAD and SAMPLE (their
// norms and movements included) for one without sampled rows.
bool DoesWork(const BlockGraph& graph, const Op& op, const ProgramInfo& info,
              const StepShape& shape);

// A prefill of `tokens` from an empty context with one row sampled; or one decode step of
// `sequences` that hold `context` tokens each before it. Cut into the program's microbatches as the
// engine does.
StepShape PrefillShape(const Program& program, uint32_t tokens);
StepShape DecodeShape(const Program& program, uint32_t sequences, uint32_t context);

struct OpCost {
  double flops = 0;         // multiply-adds count as two
  double memory_bytes = 0;  // device memory read and written: weights, KV, activations
  // The parts of the two above that attention spends on the KV cache: they have efficiencies of
  // their own, see pricer.h.
  double attention_flops = 0;
  double kv_bytes = 0;
};
// Movements cost nothing here. With R rows, S sampled, h hidden, f32 activations:
//   EMBED      reads its share of R rows of the table, writes R*h
//   ATTENTION  2*params*R + 4*group*head_dim*KV heads*attended flops; reads the units' weights, R*h
//              and the KV of kv_tokens, writes KV of R and R*h
//   MLP        2*params*R flops; reads the units' weights and R*h, writes R*h
//   HEAD       2*params*S flops; reads the units' weights and S*h, writes S*columns
//   NORM, ADD  read R*h or 2*R*h, write R*h (NORM of HEAD: S); SAMPLE reads S*vocabulary
OpCost CostOf(const BlockGraph& graph, const Op& op, const MicrobatchShape& shape);

// Time at a device's roof: max(flops / F, bytes / B), at efficiency 1.
double RooflineSeconds(const OpCost& cost, const DeviceSpec& device);

// One hop of a movement: `bytes` from src to dst. A host-staged hop between devices is two: src to
// host, host to dst; both carry the path host_staged, while hops that start or end at the host
// carry the rig's host path.
struct Hop {
  DeviceId src;
  DeviceId dst;
  PathKind path = PathKind::kLocal;  // resolved, never kAuto
  Bytes bytes;
};
// All hops of an op, in a fixed order; empty for compute ops, and for an op without work. `shape`
// is ShapeFor the op, `info` the program's, `wire` the plan's. W(n) = WireBytes(wire, n):
//   ALL_REDUCE one_shot  N = R*h; each rank to each other W(N)  (also when no algorithm is named)
//   ALL_REDUCE two_shot  shard k = elements [N*k/D, N*(k+1)/D): first rank i to j W(shard j), then
//                        rank i to j W(shard i)
//   REDUCE_SCATTER       shard k = rows [R*k/D, R*(k+1)/D): rank i to j W(shard j * h)
//   ALL_GATHER           rank i to each other W(shard i * h); logits: W(S * columns of its units)
//   TRANSFER             W of the value: R*h; S*h for the norm of HEAD; S*columns for logits
//   FETCH                the units' stored bytes, once a step with any row
//   KV_MOVE              f16 keys and values of the units for the R rows this step appended
//   SAMPLE               4*S to the host
std::vector<Hop> HopsOf(const BlockGraph& graph, const Op& op, const ProgramInfo& info,
                        const MicrobatchShape& shape, WireType wire, const Rig& rig);

// Traffic of a whole program summed per (src, dst, path), in that order.
struct TrafficRow {
  ProgramKind phase = ProgramKind::kPrefill;
  DeviceId src;
  DeviceId dst;
  PathKind path = PathKind::kLocal;
  Bytes bytes;
  uint32_t rows = 0;  // rows of the step
};
std::vector<TrafficRow> TrafficOf(const BlockGraph& graph, const Plan& plan, const Program& program,
                                  const ProgramInfo& info, const StepShape& shape, const Rig& rig);

}  // namespace tandem
