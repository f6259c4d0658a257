// List scheduling of one step over device queues and links: given how long each op takes on its own,
// when does each start and end, what is exposed, and where did each device's time go. The pricer
// feeds it modelled times, the executor measured ones laid on a rig; both get the same timeline.
//
// Each device has compute, copy-in, copy-out and comm queues; queue order is list order. An op starts
// when its queues are free, its operands are there, a slot it overwrites is no longer read, and the KV
// it reads is current. Hops occupy the directed link (src, dst) one after the other.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/plan/cost.h"
#include "engine/plan/plan.h"
#include "engine/plan/verifier.h"

namespace tandem {

struct OpTiming {
  Nanos start;
  Nanos end;
  Nanos launch;         // part of [start, end) that is the launch gap
  Nanos exposed;        // movements: the part during which a waiting device's compute stood idle
};

// Where one device's step went; the parts sum to the step exactly (integers on one axis).
// At each instant the first that applies: compute (an op runs), launch (its gap), exposed
// communication (no compute; a movement touching the device is on the wire), waiting (no compute;
// an op of this device has operands still being made elsewhere), idle (the rest).
struct DeviceAttribution {
  DeviceId device;
  Nanos compute;
  Nanos launch;
  Nanos exposed_comm;
  Nanos wait;
  Nanos idle;
  Nanos total() const { return compute + launch + exposed_comm + wait + idle; }
};

struct Timeline {
  Nanos length;                    // of the step
  std::vector<OpTiming> ops;       // by op index; from zero at the step's start
  std::vector<DeviceAttribution> devices;
  Nanos link_busy;                 // union over links of the time something was on a wire between
                                   // devices (host hops of device-to-device movements included)
  Nanos exposed_comm;              // the largest over devices
};

// compute_times[i] is the time of op i on its device, launch gap not included; movements' entries
// are ignored, as their times come from the rig's links. Ops of empty microbatches take no time.
Timeline LaySchedule(const BlockGraph& graph, const Plan& plan, const Program& program,
                     const ProgramInfo& info, const StepShape& shape, const Rig& rig,
                     std::span<const Nanos> compute_times);

// A Chrome trace (JSON array format) of one timeline, a process a device, a thread a queue.
std::string ChromeTrace(const Plan& plan, const Program& program, const Timeline& timeline);

}  // namespace tandem
