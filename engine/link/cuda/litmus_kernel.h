// The launch of litmus.cu. `stream` as DeviceQueue::native() gives it; the caller has made its
// device current. Includes no CUDA header.
#pragma once

#include <cstdint>

#include "engine/link/peer_layout.h"

namespace tandem::peer {

void LaunchLitmus(uint32_t blocks, uint32_t threads, void* stream, const LitmusArgs& args);
// To be loaded before it is launched, see VisitKernels.
const void* LitmusKernel();

}  // namespace tandem::peer
