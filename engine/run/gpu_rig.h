// Devices by name ("2", "cpu:0,cpu:1", "cuda:0,cuda:1", "cuda:0,cuda:0"), and the rig that this
// machine's GPUs are: their memory as it is free now, nominal rates from the driver until somebody
// probes them, and a link by what the driver grants. Everything that can be refused before a model
// is loaded is refused here, with what to do.
//
//   DeviceList list = ParseDeviceList("cuda:0,cuda:1");
//   Rig rig = GpuRig(list.gpus, FindGpus(), ReadGpuMemory);  // or MachineRig of gpu_share.h
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/device/cuda/cuda_device.h"
#include "engine/device/inventory.h"
#include "engine/rig/rig.h"
#include "kernels/ops.h"

namespace tandem {

inline constexpr uint32_t kMaxDevices = 16;

struct DeviceList {
  uint32_t count = 0;
  std::vector<int> gpus;  // by device, Rig::kNotAGpu for the CPU beside them; empty: CPU devices
};
// Throws Error(kInvalidArgument) naming --devices.
DeviceList ParseDeviceList(const std::string& text);

// Throws Error(kUnsupported | kDevice | kInvalidArgument): built without CUDA, no driver, one that
// is too old, an index out of range, a GPU older than the kernels. `memory_of` tells what is free.
Rig GpuRig(std::span<const int> gpus, const GpuInventory& found,
           const std::function<GpuMemory(int)>& memory_of);

// What a rig file says of GPUs, on the ones named: its rates and links, this machine's memory where
// that is less. Throws as GpuRig, and Error(kInvalidArgument) where the file's devices are other
// cards: what was measured of one card is not said of another.
Rig RigOnGpus(const Rig& described, std::span<const int> gpus, const GpuInventory& found,
              const std::function<GpuMemory(int)>& memory_of);

// Whether a device is a GPU: one of this machine's, or a card as a rig describes it.
bool IsGpu(const Rig& rig, size_t device);

// Throws Error(kUnsupported) where products are to be cuBLASLt's and no device is a GPU of this
// machine.
void CheckProducts(const Rig& rig, PrefillProducts products);
// Takes what products of that kind need of each GPU (LibraryRoom) from what plans may use of it.
// Throws as above where there is no GPU, described ones included.
void MakeRoomForProducts(Rig& rig, PrefillProducts products);

// Kept free on every GPU: what the libraries and the driver take beside the ledger.
inline constexpr Bytes kGpuReserve{uint64_t{512} << 20};

}  // namespace tandem
