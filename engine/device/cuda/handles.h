// CUDA's objects as owners that remember their device and free on it, and the one way an error of
// the runtime becomes an Error. For the cuda folders alone: it includes the runtime's header.
//
//   OnDevice current(ordinal);
//   CudaStream stream = MakeStream(ordinal);
//   CheckCuda(cudaStreamSynchronize(stream.get()), "finish");
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <source_location>
#include <type_traits>

namespace tandem {

// Throws Error(kDevice) naming `what`, the current device and CUDA's word for it. An error that
// leaves the device unusable says so: every call after it fails, and the process has to start anew.
void CheckCuda(cudaError_t status, const char* what,
               std::source_location where = std::source_location::current());
namespace cuda {
// The same for the launches of native/gpu_platform.h.
void CheckLaunch(cudaError_t status, const char* what);
}  // namespace cuda
// Whether the context is lost for good.
bool IsSticky(cudaError_t status);

// Makes a device the thread's current one; the one before is current again after.
class OnDevice {
 public:
  explicit OnDevice(int ordinal);
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = -1;  // -1: nothing to go back to
};

struct StreamDeleter {
  int ordinal = 0;
  void operator()(cudaStream_t stream) const noexcept;
};
using CudaStream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, StreamDeleter>;
// Non-blocking: the default stream has no part in anything. `urgent` streams go first where the
// device has to choose.
CudaStream MakeStream(int ordinal, bool urgent);

struct EventDeleter {
  int ordinal = 0;
  void operator()(cudaEvent_t event) const noexcept;
};
using CudaEventHandle = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, EventDeleter>;
CudaEventHandle MakeTimedEvent(int ordinal);
CudaEventHandle MakeOrderEvent(int ordinal);  // keeps order alone

}  // namespace tandem
