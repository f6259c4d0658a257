// What this machine can do, as a roof: the rate at which the thread team reads memory, for working
// sets from the first cache level to DRAM, and the rate at which it multiplies and adds. Rig time
// is a ratio to it, so the probes run beside the steps and the medians follow the machine as its
// neighbours come and go.
//
// One thread; uses the team between ops.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/base/units.h"
#include "engine/device/cpu/thread_pool.h"
#include "kernels/cpu/probe_loops.h"

namespace tandem {

class HostProbe {
 public:
  HostProbe(ThreadPool& pool, ArithmeticKind arithmetic);
  ~HostProbe();

  // Bytes a second that the team reads from a working set of this size: between two probed sizes by
  // interpolation over the logarithm of the size.
  double bytes_per_s(double working_set) const;
  // Operations a second, a multiply-add counting as two.
  double flops() const;

  // One measurement, apart from the medians: reading memory beyond the caches, and multiplying.
  double SampleMemoryRead();
  double SampleFlops(ArithmeticKind arithmetic);

  // Told that `step` of useful time has passed: measures again, a slice at a time, so that probing
  // stays below kShare of it.
  void Interleave(Nanos step);
  static constexpr double kShare = 0.01;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem
