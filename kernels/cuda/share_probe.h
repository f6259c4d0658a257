// How much of a GPU's memory bandwidth a part of it reaches, alone and while the other parts read
// too, and whether kernels of all parts run at the same time: what decides how a GPU is cut when it
// stands for several devices (engine/run/gpu_share.h).
//
// Implemented by share_probe.cu, or by no_cuda_ops.cc where CMake found no toolkit. Compiled, never
// run on a GPU.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/device/cuda/green.h"

namespace tandem {

struct ShareBandwidth {
  double alone = 0;   // bytes/s of the first part while the others lie idle
  double beside = 0;  // the slowest part's while all read
};

// Reads memory of its own by the parts' streams, some tens of milliseconds. Throws Error(kDevice).
ShareBandwidth MeasureShares(int gpu, std::span<const std::shared_ptr<GpuPart>> parts);

// A kernel on each part waits until the kernels of all have begun, a second at most. False: one
// stood behind another, and kernels that wait for each other would never end.
bool PartsRunTogether(int gpu, std::span<const std::shared_ptr<GpuPart>> parts);

// The numbers of the multiprocessors that a part's kernels were seen on, in order.
std::vector<uint32_t> MultiprocessorsOf(int gpu, const std::shared_ptr<GpuPart>& part);

}  // namespace tandem
