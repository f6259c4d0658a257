// What a plan costs on a rig without running it: each op by its device's roofline and efficiencies,
// each movement by its link's curve, laid on the queues by schedule.h.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/plan/schedule.h"

namespace tandem {

// Compute time of every op of the program with the device's efficiencies (movements 0). With F and
// B the device's peaks, c and m its efficiencies, and kv, attention the op's parts on the KV cache:
//   max(flops / (c F), bytes / (m B)) + kv bytes / (0.75 m B) + attention flops / (0.75 c F)
// Attention's terms stand apart because one roof over all errs half as much again, and they reach
// less of the peaks: 0.6 where products reach 0.8 in published runs, and 0.45 where those reach
// 0.6.
//
// Where `product_efficiency` is given (by device), products reach that share of the peak in place
// of c; attention's arithmetic does not. An op that runs with another has its part of their
// traffic: `runs_with` is what FusedOps says of the step, or empty where all run for themselves.
std::vector<Nanos> ModelledOpTimes(const BlockGraph& graph, const Program& program,
                                   const StepShape& shape, const Rig& rig,
                                   std::span<const double> product_efficiency = {},
                                   std::span<const uint32_t> runs_with = {});

struct Price {
  Timeline timeline;
  // The interval: op times off by a factor of 1.2 either way, links by 1.1 where a table was
  // measured and by 1.6 where latency and bandwidth stand for one (what such a line errs
  // mid-range).
  Nanos low;
  Nanos high;
  std::vector<uint32_t>
      critical_path;  // ops that take time, first to last; each let the next start
  std::vector<TrafficRow> traffic;
};
struct PriceOptions {
  std::span<const double> product_efficiency = {};  // as ModelledOpTimes takes it
  bool fuse_collectives = true;                     // as the engine's switch
};
Price PriceStep(const BlockGraph& graph, const Plan& plan, const Program& program,
                const ProgramInfo& info, const StepShape& shape, const Rig& rig,
                const PriceOptions& options = {});

}  // namespace tandem
