// The host's memory has one bandwidth. Its processor takes some of it while it computes, and so
// does all that crosses between the host and cards meanwhile: where both want more than there is,
// both take longer, each in proportion to what it wants.
//
// For schedule.cc, which lays a step as if each had all of it, asks what that delays, and lays it
// again.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/units.h"
#include "engine/plan/attribution.h"
#include "engine/plan/schedule.h"

namespace tandem {

// An op that wants so much of the memory for a while.
struct DramUse {
  uint32_t op = 0;
  Interval when;
  double bytes_per_s = 0;
};

// By op of `n_ops`, how much later it ends because others use the memory too: in a stretch where
// uses want f > 1 times what there is, each advances at 1/f of its rate, and so loses 1 - 1/f of
// it. Alone no use is delayed, whatever it wants.
std::vector<Nanos> DramDelays(std::span<const DramUse> uses, double bytes_per_s, size_t n_ops);

// A step of a program as schedule.cc lays it.
struct LaidStep {
  const BlockGraph& graph;
  const Plan& plan;
  const Program& program;
  const ProgramInfo& info;
  const StepShape& shape;
  const Rig& rig;
  std::span<const Nanos> compute_times;
};
// The host's processor, where an op of the program runs on it; else null. Its memory bandwidth is
// the host memory's.
const DeviceSpec* ProcessorInUse(const Program& program, const Rig& rig);
// What the step's ops want of the host's memory while they run in `timeline`, where they end later
// by `delays` than they would alone: the processor's ops their memory traffic, messages the bytes
// of each hop to or from the host, read or written once.
std::vector<DramUse> DramUsesOf(const LaidStep& step, const Timeline& timeline,
                                std::span<const Nanos> delays);

}  // namespace tandem
