// What the switches of GPUs (gpu_switches.h) make of a rig and ask of a plan, before anything is
// loaded. The engine and what only plans or prices (tandem plan, tandem predict, predicted
// scenarios) go by the same functions: a plan that is shown is the plan that would run.
//
//   DriveRig(rig, gpu);              // then plan on it
//   CheckSwitches(gpu, rig, plan);   // would an engine take it?
#pragma once

#include <string>

#include "engine/plan/plan.h"
#include "engine/rig/rig.h"
#include "engine/run/gpu_switches.h"

namespace tandem {

// The rig as it is driven: plans may use less of a GPU where products need room there, and no step
// is replayed where none is recorded. A card that the rig describes counts as a GPU (IsGpu). Throws
// Error(kUnsupported) for products that are for GPUs where no device is one.
void DriveRig(Rig& rig, const GpuSwitches& gpu);

// Throws Error(kUnsupported) for what an engine refuses of a plan on GPUs that are driven so:
// attention in half precision, or recorded steps, where the CPU is among the devices; recorded
// steps of a plan that has none to record.
void CheckSwitches(const GpuSwitches& gpu, const Rig& rig, const Plan& plan);

// The refusals, for whoever finds the reason.
[[noreturn]] void RefuseAttention(AttentionPrecision precision);
[[noreturn]] void RefuseGraphs(const std::string& why);
std::string WhyDevicesCannotRecord(const std::string& devices);
inline constexpr const char* kWhyPlanCannotBeRecorded =
    "the plan fetches weights in every decode step, and such steps are not recorded";

}  // namespace tandem
