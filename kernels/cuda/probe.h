// A GPU's roofs (kernels/device_probe.h): its memory by kernels of our own, its products by cuBLAS,
// which is loaded when a product is first asked for (linked in, its tables would cost every process
// 150 MB), launches by kernels that do nothing.
//
// **Has never run on a GPU.**
#pragma once

#include <memory>

#include "engine/device/device.h"
#include "kernels/device_probe.h"

namespace tandem::cuda {

struct CudaProbeOptions {
  int device = 0;            // the runtime's number
  void* stream = nullptr;    // of that device
  Device* memory = nullptr;  // that device; gives the probe what it reads, up to 1 GiB
};
std::unique_ptr<DeviceProbe> MakeCudaProbe(const CudaProbeOptions& options);

}  // namespace tandem::cuda
