// Devices that reach each other's memory, and the kernels of peer links on them, for tests that run
// on either kind:
//
//   peer_machine.cc      emulated: memory and streams of emulated_gpus/machine.h without the CUDA
//                        runtime on top, so that no toolkit is needed; the kernels in their
//                        emulation, those of different devices side by side on different threads
//   peer_machine_gpu.cc  the GPUs of this machine, one for several devices where there are too few
#pragma once

#include <functional>
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

// Passes launches on to those, but messages' on devices that `drops` names.
class SomePeerKernels : public PeerKernels {
 public:
  std::function<bool(size_t device)> drops = [](size_t) { return false; };

  void Reduce(size_t device, DeviceQueue& queue, WireType wire, peer::Way way, uint32_t channels,
              const peer::ReduceArgs& args) override {
    if (!drops(device)) inner_->Reduce(device, queue, wire, way, channels, args);
  }
  void ReduceRows(size_t device, DeviceQueue& queue, WireType wire, uint32_t blocks,
                  const peer::RowsArgs& args) override {
    if (!drops(device)) inner_->ReduceRows(device, queue, wire, blocks, args);
  }
  void Send(size_t device, DeviceQueue& queue, WireType wire, peer::Way way, uint32_t channels,
            const peer::SendArgs& args) override {
    if (!drops(device)) inner_->Send(device, queue, wire, way, channels, args);
  }
  void Receive(size_t device, DeviceQueue& queue, WireType wire, peer::Way way, uint32_t channels,
               const peer::SendArgs& args) override {
    if (!drops(device)) inner_->Receive(device, queue, wire, way, channels, args);
  }
  void Copy(size_t device, DeviceQueue& queue, const peer::CopyArgs& args) override {
    inner_->Copy(device, queue, args);
  }
  void Litmus(size_t device, DeviceQueue& queue, uint32_t blocks, uint32_t threads,
              const peer::LitmusArgs& args) override {
    inner_->Litmus(device, queue, blocks, threads, args);
  }

 private:
  std::unique_ptr<PeerKernels> inner_ = MakePeerKernels();
};

// Asks a queue of the device for the kernel of kernels/cuda/norms.cu.
void AskAddNorm(size_t device, DeviceQueue& queue, const cuda::NormCall& call);

// Why there is nothing to run on; empty where there is.
std::string NoPeerMachine();
// Whether stores without a fence come late here for certain.
bool HoldsStoresBack();

}  // namespace tandem::testing
