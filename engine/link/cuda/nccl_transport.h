// The path `nccl`: messages as NCCL's point-to-point sends and receives, one communicator a device,
// all of one process (ncclCommInitAll), each batch of messages one group; small all-reduces over
// symmetric windows, where NCCL grants them (nccl_windows.h). Launched eagerly, never within a
// graph. The arithmetic of collectives stays ours, so results are those of every other path.
//
// What is asked of NCCL is watched (nccl_watch.h): a device that never comes, or an error that NCCL
// meets on its own, ends within the bound, and TakeFailure tells of it.
//
// Implemented by nccl_transport.cc, or by no_nccl.cc where CMake found no NCCL.
#pragma once

#include <memory>
#include <span>

#include "engine/link/peer_link.h"
#include "engine/link/transport.h"
#include "engine/link/wire_ops.h"

namespace tandem {

struct NcclSetup {
  std::span<const int> gpus;                           // by DeviceId
  std::span<const std::unique_ptr<WireOps>> wire_ops;  // likewise; outlive the transport
  bool windows = true;                                 // ask for them; refused, it works without
  Nanos bound = PeerLinkOptions{}.bound;               // of one device's waiting for another
};

// Throws Error(kUnsupported) without NCCL, or where a GPU stands for two devices (NCCL takes one
// rank a GPU), and Error(kDevice) when NCCL refuses.
std::unique_ptr<Transport> MakeNcclTransport(const NcclSetup& setup);

}  // namespace tandem
