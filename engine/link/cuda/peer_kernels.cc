#include "engine/link/cuda/peer_kernels.h"

#include <cuda_runtime_api.h>

#include <vector>

#include "engine/device/cuda/handles.h"
#include "engine/link/cuda/litmus_kernel.h"
#include "engine/link/cuda/p2p_kernels.h"

namespace tandem {
namespace {

// On the current device.
void Load(const void* kernel) {
  cudaFuncAttributes attributes{};
  CheckCuda(cudaFuncGetAttributes(&attributes, kernel), "link: load a kernel");
}

class CudaPeerKernels final : public PeerKernels {
 public:
  explicit CudaPeerKernels(std::span<const int> gpus) : gpus_(gpus.begin(), gpus.end()) {
    for (int gpu : gpus_) {
      OnDevice current(gpu);
      peer::VisitKernels(Load);
      Load(peer::LitmusKernel());
    }
  }

  void Reduce(size_t device, DeviceQueue& queue, WireType wire, peer::Way way, uint32_t channels,
              const peer::ReduceArgs& args) override {
    OnDevice current(gpus_[device]);
    peer::LaunchReduce(wire, way, channels, queue.native(), args);
  }
  void ReduceRows(size_t device, DeviceQueue& queue, WireType wire, uint32_t blocks,
                  const peer::RowsArgs& args) override {
    OnDevice current(gpus_[device]);
    peer::LaunchReduceRows(wire, blocks, queue.native(), args);
  }
  void Send(size_t device, DeviceQueue& queue, WireType wire, peer::Way way, uint32_t channels,
            const peer::SendArgs& args) override {
    OnDevice current(gpus_[device]);
    peer::LaunchSend(wire, way, channels, queue.native(), args);
  }
  void Receive(size_t device, DeviceQueue& queue, WireType wire, peer::Way way, uint32_t channels,
               const peer::SendArgs& args) override {
    OnDevice current(gpus_[device]);
    peer::LaunchReceive(wire, way, channels, queue.native(), args);
  }
  void Copy(size_t device, DeviceQueue& queue, const peer::CopyArgs& args) override {
    OnDevice current(gpus_[device]);
    peer::LaunchCopy(queue.native(), args);
  }
  void Litmus(size_t device, DeviceQueue& queue, uint32_t blocks, uint32_t threads,
              const peer::LitmusArgs& args) override {
    OnDevice current(gpus_[device]);
    peer::LaunchLitmus(blocks, threads, queue.native(), args);
  }

 private:
  const std::vector<int> gpus_;  // by DeviceId
};

}  // namespace

std::unique_ptr<PeerKernels> MakeCudaPeerKernels(std::span<const int> gpus) {
  return std::make_unique<CudaPeerKernels>(gpus);
}

}  // namespace tandem
