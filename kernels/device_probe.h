// What one device does at its best, a measurement at a time: the roofs that a rig is described by.
// One implementation a back end (kernels/cuda/probe.h, engine/run/host_device_probe.h).
//
// Devices that work on their own time are asked first and answer later, so that several (and those
// that share one GPU) are measured side by side. One thread; the probe holds memory of its device
// and uses its compute queue, with nothing else on it.
//
//   probe->Ask(DeviceMeasure::kMemoryRead);
//   double bytes_per_s = probe->Take();
#pragma once

#include <cstdint>

namespace tandem {

enum class DeviceMeasure : uint8_t {
  kMemoryRead,   // bytes a second read from memory beyond the caches
  kMemoryCopy,   // bytes a second, read and written, of copies there
  kProductBf16,  // operations a second of products with f32 sums (int32 for int8); a multiply-add
  kProductF16,   // counts as two
  kProductInt8,
  kProductF32,
  kLaunchEager,  // seconds from one launch to the next, asked one by one
  kLaunchGraph,  // the same within a CUDA graph
};

class DeviceProbe {
 public:
  virtual ~DeviceProbe() = default;
  // Begins one measurement. Throws Error(kUnsupported | kDevice) where the device has no such
  // thing, saying why.
  virtual void Ask(DeviceMeasure what) = 0;
  // Waits for it and gives the number. Throws Error(kDevice).
  virtual double Take() = 0;
};

}  // namespace tandem
