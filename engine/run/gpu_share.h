// How one GPU that stands for several devices is cut: each device gets so many multiprocessors of
// its own that its memory bandwidth is the same alone and while the others read too. Half of them
// would reach more than half of the bandwidth while the other half idles, so a device would be
// faster than the card it stands for just when its peer waits.
//
// The search is plain arithmetic over a function that measures; what measures is the GPU's part
// (kernels/cuda/share_probe.h). What runs on a rig made here is emulated, whatever was calibrated:
// caches, clocks and copy engines stay shared, and no link is crossed.
//
//   Rig rig = MachineRig(ParseDeviceList("cuda:0,cuda:0"), ParseGpuShare("auto"));
//   rig.shares[0].sms;
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "engine/device/cuda/green.h"
#include "engine/rig/rig.h"
#include "engine/run/gpu_rig.h"
#include "kernels/cuda/share_probe.h"

namespace tandem {

struct GpuShareOption {
  enum class Kind : uint8_t { kCalibrate, kForce, kOff };
  Kind kind = Kind::kCalibrate;
  uint32_t sms = 0;  // of each device, where forced
};
// "auto", "off", or a number of multiprocessors. Throws Error(kInvalidArgument) naming --gpu-share.
GpuShareOption ParseGpuShare(const std::string& text);

// What is asked of a GPU; tests answer in its place.
struct GpuShareProbes {
  std::function<GpuCut(int gpu)> cut_of;
  std::function<ShareBandwidth(int gpu, uint32_t parts, uint32_t sms)> measure;
  std::function<bool(int gpu, uint32_t parts, uint32_t sms)> run_together;
};
// cuda_share.cc, or no_cuda_backend.cc in a build without CUDA.
GpuShareProbes ThisMachinesShares();

// Bandwidth beside the others counts as that alone when it lacks no more than this.
inline constexpr double kShareTolerance = 0.03;

// The most multiprocessors a part at which `measure` finds both bandwidths equal; where they never
// are, the fewest (GpuShare::balanced says so). Assumes that more of them never make it fairer.
// Throws Error(kDevice) where the GPU is too small to be cut.
GpuShare CalibrateShare(const GpuCut& cut, uint32_t parts,
                        const std::function<ShareBandwidth(uint32_t sms)>& measure);

// Cuts the rig's GPUs that stand for several devices: sets `shares` and the rates that follow from
// them. Leaves a rig alone that has none. Throws Error(kDevice | kUnsupported | kInvalidArgument).
void ShareGpus(Rig& rig, const GpuShareOption& option, const GpuShareProbes& probes);

// The rig that these devices of this machine make, GPUs as they are found now and cut where they
// are shared.
Rig MachineRig(const DeviceList& list, const GpuShareOption& option = {});

}  // namespace tandem
