// Ops of a program that devices run as one: an ADD and the NORM of its sum, and a small ALL_REDUCE
// with the ADDs, and their NORMs, that alone want its result. The plan keeps them all. The executor
// runs them so, and pricer and schedule count one launch and one pass for them.
//
// Values share an arena, and the executor runs two of them apart where what one writes lies across
// what the other reads. That depends on a step's layout, is rare, and no price knows it.
//
//   FusedOps fused(graph, plan, program, info);   // once
//   fused.In(shape, rig)[norm] == add;            // for every step
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/plan/cost.h"
#include "engine/plan/plan.h"
#include "engine/plan/verifier.h"
#include "engine/rig/rig.h"

namespace tandem {

inline constexpr uint32_t kNoOp = UINT32_MAX;

// The NORM of an ADD's sum that is the next op of its device, where nothing but other devices'
// compute ops lies between in the list: it then waits for nothing that comes after the ADD. HEAD's
// norm is not of all rows.
uint32_t NextNorm(const BlockGraph& graph, const Program& program, uint32_t add);
// Of a one-shot ALL_REDUCE, by rank, the ADD that is the next op of the device and the only one to
// want the rank's result; none where a rank has none.
std::vector<uint32_t> NextAdds(const Program& program, uint32_t reduce);

// Messages of up to so many values cross by small kernels, as words that carry their generation
// (engine/link/peer_link.h): in the reader's or the writer's memory, or in the host's, over whose
// links words double what crosses, so that a fence and a flag soon cost less.
inline constexpr uint64_t kMostPeerWords = 16384;
inline constexpr uint64_t kMostHostWords = 4096;
// Whether the kernels of a resolved path take what follows an all-reduce of (rows, width) along.
bool TakesRowsAlong(PathKind path, WireType wire, uint64_t rows, uint64_t width);

// What each op of a step runs with: a NORM with its ADD, an ADD with its ALL_REDUCE. By op, kNoOp
// of those that run for themselves. Keeps references; any thread may ask.
class FusedOps {
 public:
  // `collectives`: whether all-reduces take anything along (--fuse-collectives).
  FusedOps(const BlockGraph& graph, const Plan& plan, const Program& program,
           const ProgramInfo& info, bool collectives = true);
  // ADDs with their NORMs alone: what any device does.
  std::vector<uint32_t> Pairs(const StepShape& shape) const;
  // On the devices of that rig, over its paths.
  std::vector<uint32_t> In(const StepShape& shape, const Rig& rig) const;

 private:
  bool TakesAddsAlong(uint32_t reduce, const StepShape& shape, const Rig& rig) const;

  const BlockGraph& graph_;
  const Plan& plan_;
  const Program& program_;
  const ProgramInfo& info_;
  std::vector<uint32_t> next_norm_;               // by op
  std::vector<std::vector<uint32_t>> next_adds_;  // by op
};

// The part of its memory traffic (cost.h) that each op has in such a step, given what In or Pairs
// says. Of R rows of h values, an ADD and its NORM read 2*R*h and write 2*R*h, which is 4/5 of what
// they do alone; within an ALL_REDUCE, which reads and writes R*h itself, an ADD reads one R*h more
// (1/3) and a NORM writes one (1/2).
std::vector<double> TrafficShares(const Program& program, std::span<const uint32_t> runs_with);

}  // namespace tandem
