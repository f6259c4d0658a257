// What a plan costs on a rig without running it: each op by its device's roofline and efficiencies,
// each movement by its link's curve, laid on the queues by schedule.h.
#pragma once

#include <string>
#include <vector>

#include "engine/plan/schedule.h"

namespace tandem {

// Compute time of every op of the program by roofline with the device's efficiencies (movements 0).
std::vector<Nanos> ModelledOpTimes(const BlockGraph& graph, const Program& program,
                                   const StepShape& shape, const Rig& rig);

struct Price {
  Timeline timeline;
  Nanos low;    // the interval: efficiencies and link curves each off by their known error
  Nanos high;
  std::vector<uint32_t> critical_path;  // op indices, first to last
  std::vector<TrafficRow> traffic;
};
Price PriceStep(const BlockGraph& graph, const Plan& plan, const Program& program,
                const ProgramInfo& info, const StepShape& shape, const Rig& rig);

}  // namespace tandem
