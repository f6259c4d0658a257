// The path `nccl`: messages as NCCL's point-to-point sends and receives, one communicator a device,
// all of one process (ncclCommInitAll), each batch of messages one group. Launched eagerly, never
// within a graph. The arithmetic of collectives stays ours, so results are those of every other
// path.
//
// Implemented by nccl_transport.cc, or by no_nccl.cc where CMake found no NCCL.
#pragma once

#include <memory>
#include <span>

#include "engine/link/transport.h"

namespace tandem {

// `gpus` by DeviceId. Throws Error(kUnsupported) without NCCL, or where a GPU stands for two
// devices (NCCL takes one rank a GPU), and Error(kDevice) when NCCL refuses.
std::unique_ptr<Transport> MakeNcclTransport(std::span<const int> gpus);

}  // namespace tandem
