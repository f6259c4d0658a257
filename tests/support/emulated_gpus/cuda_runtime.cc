// The functions of the CUDA runtime that the engine calls, over the emulated machine. One that is
// not here is the real library's, which says that it finds no driver.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "tests/support/emulated_gpus/capture.h"
#include "tests/support/emulated_gpus/machine.h"

using tandem::emulated::Capture;
using tandem::emulated::CurrentDevice;
using tandem::emulated::Event;
using tandem::emulated::EventState;
using tandem::emulated::Machine;
using tandem::emulated::Place;
using tandem::emulated::Stream;
using tandem::emulated::TheCapture;

namespace {

constexpr int kVersion = 13000;
constexpr int kMultiprocessors = 8;

thread_local cudaError_t last_error = cudaSuccess;

cudaError_t Say(cudaError_t status) {
  // As every call does once a context is lost.
  if (Machine::Get().lost()) status = cudaErrorIllegalAddress;
  if (status != cudaSuccess) last_error = status;
  return status;
}

Machine& TheMachine() { return Machine::Get(); }
// What works within a context makes one on the current device where there is none.
void Touch() { Machine::Get().Touch(CurrentDevice()); }
bool IsDevice(int device) { return device >= 0 && device < TheMachine().devices(); }

// Null where the handle is none of this machine's; the default stream is none, for nobody should
// use it.
Stream* StreamOf(cudaStream_t handle) {
  auto* stream = reinterpret_cast<Stream*>(handle);
  return TheMachine().Knows(stream) ? stream : nullptr;
}
const Event& EventOf(cudaEvent_t handle) { return *reinterpret_cast<Event*>(handle); }

// Of a stream that takes part in one; null: none.
Capture* CaptureOf(const Stream* stream) {
  Capture* capture = TheCapture();
  return capture != nullptr && capture->Holds(stream) ? capture : nullptr;
}

// A call that no capture can keep, of the one thread that captures.
bool SpoilsCapture() {
  if (TheCapture() == nullptr) return false;
  TheCapture()->Spoil();
  return true;
}

void Ask(Stream* stream, std::function<void()> work) {
  if (Capture* capture = CaptureOf(stream)) return capture->Work(stream, std::move(work));
  stream->Put(std::move(work));
}

struct Rows {
  void* to;
  size_t to_stride;
  const void* from;
  size_t from_stride;
  size_t width;
  size_t rows;
};

void CopyNow(const Rows& copy) {
  for (size_t row = 0; row < copy.rows; ++row) {
    std::memmove(static_cast<std::byte*>(copy.to) + row * copy.to_stride,
                 static_cast<const std::byte*>(copy.from) + row * copy.from_stride, copy.width);
  }
}

cudaError_t CopyRows(Rows copy, Stream* stream) {
  if (copy.width == 0 || copy.rows == 0) return cudaSuccess;
  if (copy.rows > 1 && (copy.to_stride < copy.width || copy.from_stride < copy.width)) {
    return Say(cudaErrorInvalidPitchValue);
  }
  if (stream == nullptr) return Say(cudaErrorInvalidResourceHandle);
  Place to, from;
  const auto reach = [&](size_t stride) { return (copy.rows - 1) * stride + copy.width; };
  if (!TheMachine().Locate(copy.to, reach(copy.to_stride), to) ||
      !TheMachine().Locate(copy.from, reach(copy.from_stride), from)) {
    return Say(cudaErrorInvalidValue);
  }
  if ((from == Place::kPageable || to == Place::kPageable) && CaptureOf(stream) != nullptr) {
    SpoilsCapture();
    return Say(cudaErrorStreamCaptureUnsupported);
  }
  if (from == Place::kPageable) {
    // Read before the call returns.
    auto held = std::make_shared<std::vector<std::byte>>(copy.width * copy.rows);
    CopyNow({held->data(), copy.width, copy.from, copy.from_stride, copy.width, copy.rows});
    copy.from = held->data();
    copy.from_stride = copy.width;
    stream->Put([copy, held] { CopyNow(copy); });
  } else {
    Ask(stream, [copy] { CopyNow(copy); });
  }
  if (to == Place::kPageable) stream->Finish();
  return cudaSuccess;
}

}  // namespace

extern "C" {

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = kVersion;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = TheMachine().devices();
  return *count > 0 ? cudaSuccess : Say(cudaErrorNoDevice);
}
cudaError_t cudaGetDevice(int* device) {
  *device = CurrentDevice();
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (!IsDevice(device)) return Say(cudaErrorInvalidDevice);
  CurrentDevice() = device;
  Touch();  // since CUDA 12
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  Touch();
  if (SpoilsCapture()) return Say(cudaErrorStreamCaptureUnsupported);
  TheMachine().FinishDevice(CurrentDevice());
  return Say(cudaSuccess);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!IsDevice(device)) return Say(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated GPU %d", device);
  properties->totalGlobalMem = TheMachine().total_bytes();
  properties->multiProcessorCount = kMultiprocessors;
  properties->major = 8;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (!IsDevice(device)) return Say(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = 9;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = kMultiprocessors;
      return cudaSuccess;
    case cudaDevAttrMemoryClockRate:
    case cudaDevAttrClockRate:
      *value = 1000000;
      return cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth:
      *value = 64;
      return cudaSuccess;
    default:
      *value = 0;
      return cudaSuccess;
  }
}
cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  std::snprintf(text, static_cast<size_t>(length), "0000:%02x:00.0", device + 1);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Touch();
  *total = TheMachine().total_bytes();
  *free = *total - TheMachine().used_bytes(CurrentDevice());
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int from, int to) {
  if (!IsDevice(from) || !IsDevice(to)) return Say(cudaErrorInvalidDevice);
  *can = from != to && TheMachine().peers() ? 1 : 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetP2PAttribute(int* value, cudaDeviceP2PAttr attribute, int from, int to) {
  *value = attribute != cudaDevP2PAttrPerformanceRank && from != to && TheMachine().peers() ? 1 : 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int to, unsigned) {
  Touch();
  if (!TheMachine().peers()) return Say(cudaErrorPeerAccessUnsupported);
  return TheMachine().EnablePeer(CurrentDevice(), to) ? cudaSuccess
                                                      : Say(cudaErrorPeerAccessAlreadyEnabled);
}

cudaError_t cudaMalloc(void** data, size_t size) {
  Touch();
  if (SpoilsCapture()) return Say(cudaErrorStreamCaptureUnsupported);
  *data = TheMachine().Allocate(Place::kDevice, CurrentDevice(), size);
  return *data != nullptr ? cudaSuccess : Say(cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void* data) {
  Touch();
  if (SpoilsCapture()) return Say(cudaErrorStreamCaptureUnsupported);
  if (data == nullptr || TheMachine().Free(Place::kDevice, data)) return cudaSuccess;
  return Say(cudaErrorInvalidValue);
}
cudaError_t cudaHostAlloc(void** data, size_t size, unsigned) {
  Touch();
  if (SpoilsCapture()) return Say(cudaErrorStreamCaptureUnsupported);
  *data = TheMachine().Allocate(Place::kPinned, -1, size);
  return *data != nullptr ? cudaSuccess : Say(cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeHost(void* data) {
  Touch();
  if (data == nullptr || TheMachine().Free(Place::kPinned, data)) return cudaSuccess;
  return Say(cudaErrorInvalidValue);
}
cudaError_t cudaHostRegister(void* data, size_t size, unsigned) {
  Touch();
  return TheMachine().Pin(data, size) ? cudaSuccess : Say(cudaErrorHostMemoryAlreadyRegistered);
}
cudaError_t cudaHostUnregister(void* data) {
  Touch();
  return TheMachine().Unpin(data) ? cudaSuccess : Say(cudaErrorHostMemoryNotRegistered);
}
cudaError_t cudaHostGetDevicePointer(void** seen, void* data, unsigned) {
  Touch();
  *seen = data;
  return cudaSuccess;
}

// Kernels are host functions here, and always loaded.
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  Touch();
  *attributes = {};
  // As code for sm_80 that the driver has translated for a newer GPU.
  attributes->ptxVersion = 80;
  attributes->binaryVersion = 90;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  Touch();
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  Touch();
  *stream = reinterpret_cast<cudaStream_t>(TheMachine().MakeStream(CurrentDevice()));
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  Touch();
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  Touch();
  Stream* stream = StreamOf(handle);
  if (stream == nullptr) return Say(cudaErrorInvalidResourceHandle);
  TheMachine().DestroyStream(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  Touch();
  Stream* stream = StreamOf(handle);
  if (stream == nullptr) return Say(cudaErrorInvalidResourceHandle);
  if (CaptureOf(stream) != nullptr && SpoilsCapture()) {
    return Say(cudaErrorStreamCaptureUnsupported);
  }
  stream->Finish();
  return Say(cudaSuccess);
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  Touch();
  Stream* stream = StreamOf(handle);
  if (stream == nullptr) return Say(cudaErrorInvalidResourceHandle);
  return stream->idle() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  Touch();
  Stream* stream = StreamOf(handle);
  if (stream == nullptr) return Say(cudaErrorInvalidResourceHandle);
  if (TheCapture() != nullptr && TheCapture()->Wait(stream, EventOf(event))) return cudaSuccess;
  if (CaptureOf(stream) != nullptr && SpoilsCapture()) {
    return Say(cudaErrorStreamCaptureIsolation);
  }
  if (EventOf(event)->capture != 0) return Say(cudaErrorCapturedEvent);
  tandem::emulated::WaitFor(*stream, EventOf(event));
  return Say(cudaSuccess);
}
cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
  Touch();
  Stream* stream = StreamOf(handle);
  if (stream == nullptr) return Say(cudaErrorInvalidResourceHandle);
  Ask(stream, [=] { function(data); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned flags) {
  Touch();
  auto event = std::make_shared<EventState>();
  event->device = CurrentDevice();
  event->timed = (flags & cudaEventDisableTiming) == 0;
  *handle = reinterpret_cast<cudaEvent_t>(new Event(std::move(event)));
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  Touch();
  delete reinterpret_cast<Event*>(handle);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t to) {
  Touch();
  Stream* stream = StreamOf(to);
  if (stream == nullptr || stream->device() != EventOf(handle)->device) {
    return Say(cudaErrorInvalidResourceHandle);
  }
  if (Capture* capture = CaptureOf(stream)) {
    capture->Mark(stream, EventOf(handle));
    return cudaSuccess;
  }
  EventOf(handle)->capture = 0;
  tandem::emulated::Mark(*stream, EventOf(handle));
  return Say(cudaSuccess);
}
cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  Touch();
  const Event event = EventOf(handle);
  if (event->capture != 0) return Say(cudaErrorCapturedEvent);
  uint64_t mark = 0;
  {
    const std::scoped_lock lock(event->mutex);
    mark = event->asked;
  }
  event->Wait(mark);
  return Say(cudaSuccess);
}
cudaError_t cudaEventQuery(cudaEvent_t handle) {
  Touch();
  const Event event = EventOf(handle);
  const std::scoped_lock lock(event->mutex);
  return event->passed == event->asked ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* millis, cudaEvent_t from, cudaEvent_t to) {
  Touch();
  const Event a = EventOf(from), b = EventOf(to);
  if (!a->timed || !b->timed || a->device != b->device) return Say(cudaErrorInvalidResourceHandle);
  const std::scoped_lock lock(a->mutex, b->mutex);
  if (a->capture != 0 || b->capture != 0) return Say(cudaErrorCapturedEvent);
  if (a->asked == 0 || b->asked == 0) return Say(cudaErrorInvalidResourceHandle);
  if (a->passed != a->asked || b->passed != b->asked) return Say(cudaErrorNotReady);
  *millis = std::chrono::duration<float, std::milli>(b->when - a->when).count();
  return Say(cudaSuccess);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind,
                            cudaStream_t stream) {
  Touch();
  return CopyRows({to, size, from, size, size, 1}, StreamOf(stream));
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_stride, const void* from, size_t from_stride,
                              size_t width, size_t rows, cudaMemcpyKind, cudaStream_t stream) {
  Touch();
  return CopyRows({to, to_stride, from, from_stride, width, rows}, StreamOf(stream));
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t size,
                                cudaStream_t stream) {
  Touch();
  return CopyRows({to, size, from, size, size, 1}, StreamOf(stream));
}
cudaError_t cudaMemsetAsync(void* data, int value, size_t size, cudaStream_t handle) {
  Touch();
  Stream* stream = StreamOf(handle);
  Place place;
  if (stream == nullptr || stream->device() != CurrentDevice()) {
    return Say(cudaErrorInvalidResourceHandle);
  }
  if (!TheMachine().Locate(data, size, place) || place == Place::kPageable) {
    return Say(cudaErrorInvalidValue);
  }
  Ask(stream, [=] { std::memset(data, value, size); });
  return cudaSuccess;
}

}  // extern "C"
