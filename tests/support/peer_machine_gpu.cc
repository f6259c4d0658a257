#include "engine/base/error.h"
#include "engine/device/cuda/cuda_device.h"
#include "engine/device/inventory.h"
#include "engine/link/cuda/peer_kernels.h"
#include "tests/support/peer_machine.h"

namespace tandem::testing {
namespace {

constexpr Bytes kRoom{uint64_t{1} << 30};

// By device.
std::vector<int> Gpus() {
  const GpuInventory found = FindGpus();
  std::vector<int> gpus;
  for (size_t d = 0; d < kMostPeerDevices; ++d) {
    gpus.push_back(found.gpus[d % found.gpus.size()].index);
  }
  return gpus;
}

}  // namespace

PeerMachine::PeerMachine(size_t n) : host(MakePinnedHost(kRoom)) {
  const std::vector<int> gpus = Gpus();
  for (size_t d = 0; d < n; ++d) {
    devices.push_back(MakeCudaDevice(DeviceId{static_cast<int32_t>(d)}, gpus[d], kRoom));
    for (size_t other = 0; other < n; ++other) {
      if (!GrantPeerAccess(gpus[d], gpus[other])) {
        Fail(ErrorCode::kDevice, "no access between the GPUs of this machine");
      }
    }
  }
}
PeerMachine::~PeerMachine() { FinishAll(); }

std::unique_ptr<PeerKernels> MakePeerKernels() { return MakeCudaPeerKernels(Gpus()); }

void AskAddNorm(size_t device, DeviceQueue& queue, const cuda::NormCall& call) {
  MakeGpuCurrent(Gpus()[device]);
  cuda::LaunchNorm(call, cuda::GpuStream{queue.native()});
}

std::string NoPeerMachine() {
  const GpuInventory found = FindGpus();
  if (found.gpus.empty()) return found.driver_message;
  for (const GpuPeerPath& path : found.peer_paths) {
    if (!path.access) return "the driver grants no access between the GPUs of this machine";
  }
  return {};
}
bool HoldsStoresBack() { return false; }

}  // namespace tandem::testing
