#include "engine/run/switch_rules.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/base/error.h"
#include "engine/plan/schedule.h"
#include "engine/run/gpu_rig.h"

namespace tandem {
namespace {

bool HasCpu(const Rig& rig, const Plan& plan) {
  for (size_t d = 0; d < plan.n_devices; ++d) {
    if (!IsGpu(rig, d)) return true;
  }
  return false;
}

bool HasDecodeToRecord(const Plan& plan) {
  return std::any_of(plan.programs.begin(), plan.programs.end(), RecordsSteps);
}

}  // namespace

void DriveRig(Rig& rig, const GpuSwitches& gpu) {
  MakeRoomForProducts(rig, gpu.prefill_products);
  if (gpu.graphs != GraphUse::kOff) return;
  for (DeviceSpec& device : rig.devices) device.replay_gap.reset();
  for (LinkProfile* link : {&rig.link, &rig.host_link}) {
    link->send_replayed = {};
    link->all_reduce_replayed = {};
  }
}

void CheckSwitches(const GpuSwitches& gpu, const Rig& rig, const Plan& plan) {
  const bool cpu = HasCpu(rig, plan);
  if (cpu && gpu.attention_precision != AttentionPrecision::kSplit) {
    RefuseAttention(gpu.attention_precision);
  }
  if (gpu.graphs != GraphUse::kOn) return;
  if (cpu) RefuseGraphs(WhyDevicesCannotRecord("the CPU among them"));
  if (!HasDecodeToRecord(plan)) RefuseGraphs(kWhyPlanCannotBeRecorded);
}

void RefuseAttention(AttentionPrecision precision) {
  Fail(ErrorCode::kUnsupported,
       fmt::format("engine: attention precision {} on a CPU device, which computes attention in "
                   "f32 (want --attention-precision split, or CUDA devices alone)",
                   ToString(precision)));
}

void RefuseGraphs(const std::string& why) {
  Fail(ErrorCode::kUnsupported,
       fmt::format("engine: graphs are on, but {}; or leave --graphs at auto", why));
}

std::string WhyDevicesCannotRecord(const std::string& devices) {
  return fmt::format("the devices ({}) cannot record a step; GPUs can: --devices cuda:0", devices);
}

}  // namespace tandem
