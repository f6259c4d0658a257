// List scheduling of one step over device queues and links: given how long each op takes on its
// own, when does each start and end, what is exposed, and where did each device's time go. The
// pricer feeds it modelled times, the executor measured ones laid on a rig; both get the same
// timeline.
//
// Each device has compute, copy-in, copy-out and comm queues; queue order is list order. An op
// starts when its queues are free, its operands are there, a slot it overwrites is no longer read,
// and the KV it reads is current (engine/plan/dependencies.h). Movements take the directed links
// (src, dst) that they need one after the other, first come first served; a link that is not full
// duplex is one link for both directions. A collective holds all links between its ranks from start
// to end. A message over the host holds (src, host) and (host, dst) as Rig::StagedHopTime says.
//
// The host's processor and what crosses to and from its memory share that memory's bandwidth
// (shared_dram.h).
//
// What runs as part of another op (fused_ops.h) has no launch of its own.
//
// A step is laid as if one like it had gone before: its lead fetches (lead_fetches.h) begin while
// the tail of that one computes, which is before this one's start.
//
//   ProgramSchedule schedule(graph, plan, program, info);   // once
//   Timeline t = schedule.Lay(shape, rig, op_times);        // for every step, and every link
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/plan/cost.h"
#include "engine/plan/dependencies.h"
#include "engine/plan/fused_ops.h"
#include "engine/plan/lead_fetches.h"
#include "engine/plan/plan.h"
#include "engine/plan/verifier.h"

namespace tandem {

struct OpTiming {
  Nanos start;    // negative for a FETCH that began before the step did (lead_fetches.h)
  Nanos wire;     // movements and SAMPLE: when the first byte is on a link; `end` when none is
  Nanos release;  // when it lets go of its queues: `end`, but for SAMPLE, whose ids are under way
  Nanos end;
  Nanos launch;  // part of [start, end) that is the launch gap
  Nanos
      exposed;  // part of [wire, end) during which one of its devices counts exposed communication
  // The op that let this one start, by its end or by leaving a link; empty at the step's start.
  std::optional<uint32_t> after;
};

// Where one device's step went; the parts sum to the step exactly (integers on one axis).
// At each instant the first that applies: compute (an op runs), launch (its gap; also the sampled
// ids' way to the host, which ends every step), exposed communication (no compute; a movement
// touching the device is on the wire), waiting (no compute; an op of this device has operands still
// being made elsewhere), idle (the rest).
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
  Nanos length;               // of the step
  std::vector<OpTiming> ops;  // by op index; from zero at the step's start
  std::vector<DeviceAttribution> devices;
  Nanos link_busy;     // union over links of the time something was on a wire between
                       // devices (host hops of device-to-device movements included)
  Nanos exposed_comm;  // the largest over devices
};

// Whether steps of the program may be recorded and replayed: decode that fetches no weights, for
// fetches begin before their step does.
bool RecordsSteps(const Program& program);
inline constexpr uint32_t kMostRecordedRows = 256;  // of such a step
// Whether a step of that shape is priced as a replay: by its devices' replay_gap and its links'
// curves for replays, where the rig has them. Not where the host's processor is among the devices:
// it is told of cards' work by a thread, which no recording holds.
bool ReplaysStep(const Program& program, const StepShape& shape, const Rig& rig);

// A program with its dependencies, ready to be laid on any rig and any step. Keeps references:
// graph, plan, program and info must outlive it. Any thread may call Lay.
class ProgramSchedule {
 public:
  // `fuse_collectives`: as the engine's option.
  ProgramSchedule(const BlockGraph& graph, const Plan& plan, const Program& program,
                  const ProgramInfo& info, bool fuse_collectives = true);
  // compute_times[i] is the time of op i on its device, launch gap not included; movements' entries
  // are ignored, as their times come from the rig's links. Ops without work take no time.
  Timeline Lay(const StepShape& shape, const Rig& rig, std::span<const Nanos> compute_times) const;
  const FusedOps& fused() const { return fused_; }

 private:
  const BlockGraph& graph_;
  const Plan& plan_;
  const Program& program_;
  const ProgramInfo& info_;
  std::vector<std::vector<Dependency>> dependencies_;  // by op
  std::vector<LeadFetch> leads_;
  FusedOps fused_;
};

// ProgramSchedule::Lay for one step.
Timeline LaySchedule(const BlockGraph& graph, const Plan& plan, const Program& program,
                     const ProgramInfo& info, const StepShape& shape, const Rig& rig,
                     std::span<const Nanos> compute_times, bool fuse_collectives = true);

// A Chrome trace (JSON array format) of one timeline, a process a device, a thread a queue.
std::string ChromeTrace(const Plan& plan, const Program& program, const Timeline& timeline);

}  // namespace tandem
