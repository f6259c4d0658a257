// Devices that reach each other's memory, and the kernels of peer links on them, for tests that run
// on either kind:
//
//   peer_machine.cc      emulated: memory and streams of emulated_gpus/machine.h without the CUDA
//                        runtime on top, so that no toolkit is needed; the kernels in their
//                        emulation, those of different devices side by side on different threads
//   peer_machine_gpu.cc  the GPUs of this machine, one for several devices where there are too few
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/device/device.h"
#include "engine/link/peer_kernels.h"
#include "kernels/cuda/rows.h"

namespace tandem::testing {

inline constexpr size_t kMostPeerDevices = 4;

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
  void FinishAll() {
    for (const auto& device : devices) {
      for (size_t role = 0; role < kQueueRoles; ++role) {
        device->queue(static_cast<QueueRole>(role))->Finish();
      }
    }
  }
};

// For the devices of any PeerMachine.
std::unique_ptr<PeerKernels> MakePeerKernels();

// Asks a queue of the device for the kernel of kernels/cuda/norms.cu.
void AskAddNorm(size_t device, DeviceQueue& queue, const cuda::NormCall& call);

// Why there is nothing to run on; empty where there is.
std::string NoPeerMachine();
// Whether stores without a fence come late here for certain.
bool HoldsStoresBack();

}  // namespace tandem::testing
