// Devices for tests of peer links: memory and streams of the emulated GPUs
// (emulated_gpus/machine.h), without the CUDA runtime on top, so that they need no toolkit; and the
// kernels of peer links in their emulation, those of different devices side by side on different
// threads.
#pragma once

#include <memory>
#include <vector>

#include "engine/device/device.h"
#include "engine/link/peer_kernels.h"

namespace tandem::testing {

class PeerMachine {
 public:
  explicit PeerMachine(size_t n);
  ~PeerMachine();

  std::vector<std::unique_ptr<Device>> devices;
  std::unique_ptr<Device> host;

  DeviceQueue* queue(size_t device) { return devices[device]->queue(QueueRole::kComm); }
  Buffer Room(size_t device, size_t bytes) {
    return devices[device]->Allocate(MemoryUse::kWorkspace, Bytes{bytes}, "test");
  }
  void FinishAll();
};

std::unique_ptr<PeerKernels> MakeEmulatedPeerKernels();

}  // namespace tandem::testing
