// CUDA's objects as owners that remember their device and free on it, and the one way an error of
// the runtime becomes an Error. For the cuda folders alone: it includes the runtime's header.
//
//   OnDevice current(ordinal);
//   CudaStream stream = MakeStream(ordinal, false);
//   CheckCuda(cudaStreamSynchronize(stream.get()), "finish");
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <new>
#include <source_location>
#include <type_traits>

namespace tandem {

// Throws Error(kDevice) naming `what`, the current device and CUDA's word for it. An error that
// leaves the device unusable says so: every call after it fails, and the process has to start anew.
void CheckCuda(cudaError_t status, const char* what,
               std::source_location where = std::source_location::current());
// The same of a device that is not the current one.
void CheckCudaOn(int ordinal, cudaError_t status, const char* what,
                 std::source_location where = std::source_location::current());
namespace cuda {
// The same for the launches of native/gpu_platform.h.
void CheckLaunch(cudaError_t status, const char* what);
}  // namespace cuda
// Whether the process can use no device any more: CUDA asks that it be started anew.
bool IsSticky(cudaError_t status);

// The thread's current device from here on. Makes the device's context where there is none yet.
void MakeCurrent(int ordinal);

// Makes a device the thread's current one; the one before is current again after, where it was made
// so here. CUDA's own first choice, device 0, is not gone back to: that would make a context on a
// GPU that nobody named.
class OnDevice {
 public:
  explicit OnDevice(int ordinal);
  // For what is done with a device that may be lost.
  OnDevice(int ordinal, std::nothrow_t) noexcept;
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
