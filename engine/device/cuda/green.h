// One GPU cut into parts that share no multiprocessor, so that it can stand for several devices: a
// part is a green context of the driver (CUDA 12.4 and later), and what is launched on a stream of
// it runs on its multiprocessors alone. Memory, second-level cache, copy engines and clocks stay
// shared, and addresses are those of the whole GPU.
//
// The driver's functions are asked for at run time: a binary that has this starts without a driver.
// Implemented by green.cc, or by no_cuda.cc where CMake found no toolkit.
//
// State: compiled; run against a stand-in of the driver (tests/support/emulated_gpus); never on a
// GPU.
//
//   auto parts = CutGpu(0, 2, 64);
//   auto device = MakeCudaDevice(DeviceId{0}, 0, capacity, parts[0]);
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace tandem {

// One host thread at a time. Streams made of it are destroyed before it is.
class GpuPart {
 public:
  virtual ~GpuPart() = default;
  virtual uint32_t sm_count() const = 0;
  // A cudaStream_t that the caller destroys; non-blocking. Throws Error(kDevice).
  virtual void* MakeStream(bool urgent) = 0;
};

// What a GPU may be cut into: parts of at least `least` multiprocessors, in multiples of `step`.
struct GpuCut {
  uint32_t sms = 0;  // of the whole GPU
  uint32_t least = 0;
  uint32_t step = 0;
};

// Throws Error(kUnsupported) where the driver cuts no GPUs, Error(kDevice) where it fails.
GpuCut ReadGpuCut(int ordinal);
// Parts of `sms` multiprocessors each; what is left over lies idle. Throws as ReadGpuCut, and where
// the GPU cannot be cut so.
std::vector<std::shared_ptr<GpuPart>> CutGpu(int ordinal, uint32_t parts, uint32_t sms);

}  // namespace tandem
