// Devices and inventory of a binary that was built without the CUDA toolkit.
#include "engine/base/error.h"
#include "engine/device/cuda/cuda_device.h"
#include "engine/device/inventory.h"

namespace tandem {
namespace {

[[noreturn]] void Refuse() {
  Fail(ErrorCode::kUnsupported,
       "device: this tandem was built without CUDA (want nvcc of CUDA 13 when it is built: "
       "tools/quickstart brings it where a driver is); or name CPU devices: --devices 2");
}

}  // namespace

GpuInventory FindGpus() {
  GpuInventory inventory;
  inventory.driver_message = "built without CUDA: CPU devices only";
  return inventory;
}

std::unique_ptr<Device> MakeCudaDevice(DeviceId, int, Bytes, std::shared_ptr<GpuPart>) { Refuse(); }

GpuCut ReadGpuCut(int) { Refuse(); }

std::vector<std::shared_ptr<GpuPart>> CutGpu(int, uint32_t, uint32_t) { Refuse(); }

std::unique_ptr<Device> MakePinnedHost(Bytes) { Refuse(); }

void MakeGpuCurrent(int) { Refuse(); }

bool GrantPeerAccess(int, int) { Refuse(); }

bool IsGpuLost(int) { return false; }

GpuMemory ReadGpuMemory(int) { Refuse(); }

Bytes LedgerBytes(int) { return Bytes{}; }

}  // namespace tandem
