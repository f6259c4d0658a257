// The kernels of peer links on GPUs (p2p_kernels.cu). Includes no CUDA header.
#pragma once

#include <memory>
#include <span>

#include "engine/link/peer_kernels.h"

namespace tandem {

// `gpus` by DeviceId. Loads every kernel on each of them, so that none is loaded while another
// waits for it. Throws Error(kDevice).
std::unique_ptr<PeerKernels> MakeCudaPeerKernels(std::span<const int> gpus);

}  // namespace tandem
