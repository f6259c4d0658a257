// From op times measured here to op times on the rig, and to the timeline of a step.
//
// This machine's rig on the wall clock: times are what they are, and each device's step is split
// into what ran, what moved and what others did. Otherwise every op's time becomes rig time,
// measured here and multiplied by roofline(op, rig) / roofline(op, this device), both at efficiency
// 1 and for working sets of the same size, or modelled; schedule.h lays them on the rig's queues
// and links.
//
// One thread.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/plan/schedule.h"
#include "engine/run/engine.h"
#include "engine/run/executor.h"
#include "engine/run/host_probe.h"

namespace tandem {

struct RigTimerSetup {
  const BlockGraph* graph = nullptr;
  const Plan* plan = nullptr;
  const VerifyResult* verified = nullptr;
  const Rig* rig = nullptr;
  ClockKind clock = ClockKind::kWall;
  OpTimes op_times = OpTimes::kMeasured;
  ArithmeticKind arithmetic = ArithmeticKind::kF32;  // what this device's roof is measured with
  ThreadPool* pool = nullptr;
  bool fuse_collectives = true;  // on the rig's devices
};

class RigTimer {
 public:
  explicit RigTimer(const RigTimerSetup& setup);
  ~RigTimer();

  // Whether times are this machine's own.
  bool measured() const { return measured_; }
  // Median over the ops of a decode step of roofline(rig) / roofline(here); 1 where nothing is
  // scaled.
  double op_time_factor() const { return op_time_factor_; }

  // Fills the report's op times, timeline and clipped_ops, and the ledger's times. `wall` is the
  // step's length here; `step_weights` the weights each device reads in the step.
  void Lay(const StepTrace& trace, std::span<const Bytes> step_weights, Nanos wall,
           TrafficLedger& ledger, StepReport& report);

 private:
  void ScaleTimes(const StepTrace& trace, std::span<const Bytes> step_weights, StepReport& report);
  double HereSeconds(const OpCost& cost, const Op& op, std::span<const Bytes> step_weights) const;

  const RigTimerSetup setup_;
  bool measured_;
  double op_time_factor_ = 1.0;
  std::unique_ptr<HostProbe> probe_;        // where times are scaled
  std::vector<ProgramSchedule> schedules_;  // parallel to the plan's programs
};

// The wall-clock timeline of a trace: per device, compute is what its ops took, exposed
// communication what movements took that touch it, waiting what other devices' ops and movements
// took, idle the rest of `wall`. Where ops ran side by side each instant is one thing, as
// DeviceAttribution says.
void LayMeasured(const StepTrace& trace, uint32_t n_devices, Nanos wall, Timeline& timeline);

}  // namespace tandem
