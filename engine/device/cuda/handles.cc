#include "engine/device/cuda/handles.h"

#include <fmt/format.h>

#include "engine/base/error.h"

namespace tandem {

namespace {
// What this program made the thread's current device last; -1: none yet.
thread_local int made_current = -1;
}  // namespace

bool IsSticky(cudaError_t status) {
  switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
      return true;
    default:
      return false;
  }
}

void CheckCuda(cudaError_t status, const char* what, std::source_location where) {
  if (status == cudaSuccess) return;
  int ordinal = -1;
  cudaGetDevice(&ordinal);
  CheckCudaOn(ordinal, status, what, where);
}

void CheckCudaOn(int ordinal, cudaError_t status, const char* what, std::source_location where) {
  if (status == cudaSuccess) return;
  // Clears what is not sticky, so that a later call does not report it again.
  cudaGetLastError();
  Fail(
      ErrorCode::kDevice,
      fmt::format("cuda:{}: {}: {} ({}){}", ordinal, what, cudaGetErrorString(status),
                  cudaGetErrorName(status),
                  IsSticky(status) ? "; the device is lost to this process: start it anew, and run "
                                     "compute-sanitizer if it happens again"
                                   : ""),
      where);
}

namespace cuda {
void CheckLaunch(cudaError_t status, const char* what) { CheckCuda(status, what); }
}  // namespace cuda

void MakeCurrent(int ordinal) {
  CheckCudaOn(ordinal, cudaSetDevice(ordinal), "make the device current");
  made_current = ordinal;
}

OnDevice::OnDevice(int ordinal) {
  int current = -1;
  CheckCuda(cudaGetDevice(&current), "which device is current");
  if (current == ordinal) return;
  if (current == made_current) before_ = current;
  MakeCurrent(ordinal);
}

OnDevice::OnDevice(int ordinal, std::nothrow_t) noexcept {
  int current = -1;
  if (cudaGetDevice(&current) != cudaSuccess || current == ordinal) return;
  if (cudaSetDevice(ordinal) != cudaSuccess) return;
  if (current == made_current) before_ = current;
  made_current = ordinal;
}

OnDevice::~OnDevice() {
  if (before_ < 0) return;
  cudaSetDevice(before_);
  made_current = before_;
}

// Handles are freed while an error may be on its way; they say nothing of a device that is lost.
void StreamDeleter::operator()(cudaStream_t stream) const noexcept {
  const OnDevice current(ordinal, std::nothrow);
  cudaStreamDestroy(stream);
}

void EventDeleter::operator()(cudaEvent_t event) const noexcept {
  const OnDevice current(ordinal, std::nothrow);
  cudaEventDestroy(event);
}

CudaStream MakeStream(int ordinal, bool urgent) {
  OnDevice current(ordinal);
  int least = 0, greatest = 0;
  CheckCuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "stream priorities");
  cudaStream_t stream = nullptr;
  CheckCuda(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, urgent ? greatest : least),
            "make a stream");
  return CudaStream(stream, StreamDeleter{ordinal});
}

namespace {
CudaEventHandle MakeEvent(int ordinal, unsigned flags) {
  OnDevice current(ordinal);
  cudaEvent_t event = nullptr;
  CheckCuda(cudaEventCreateWithFlags(&event, flags), "make an event");
  return CudaEventHandle(event, EventDeleter{ordinal});
}
}  // namespace

CudaEventHandle MakeTimedEvent(int ordinal) { return MakeEvent(ordinal, cudaEventDefault); }
CudaEventHandle MakeOrderEvent(int ordinal) { return MakeEvent(ordinal, cudaEventDisableTiming); }

}  // namespace tandem
