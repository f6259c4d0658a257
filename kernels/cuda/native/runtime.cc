#include "kernels/cuda/runtime.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>

#include "engine/device/cuda/handles.h"

namespace tandem::cuda {
namespace {

cudaStream_t AsStream(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t AsEvent(const EventHandle& event) { return static_cast<cudaEvent_t>(event.get()); }

}  // namespace

GpuFacts ReadGpuFacts(int device) {
  GpuFacts facts;
  int major = 0, minor = 0;
  CheckCuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
            "reading the GPU's compute capability");
  CheckCuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
            "reading the GPU's compute capability");
  CheckCuda(cudaDeviceGetAttribute(&facts.sm_count, cudaDevAttrMultiProcessorCount, device),
            "reading the GPU's number of multiprocessors");
  int l2_bytes = 0;
  CheckLaunch(cudaDeviceGetAttribute(&l2_bytes, cudaDevAttrL2CacheSize, device),
              "reading the size of the GPU's cache");
  facts.l2_bytes = static_cast<uint64_t>(l2_bytes);
  facts.compute = 10 * major + minor;
  return facts;
}

KernelCode ReadKernelCode(int device, const void* kernel) {
  OnDevice current(device);
  cudaFuncAttributes attributes{};
  CheckCuda(cudaFuncGetAttributes(&attributes, kernel), "reading what the kernels are built for");
  KernelCode code;
  // Of code for one GPU both are its own; of code that was translated here, the first is what it
  // was compiled for.
  code.compute = std::min(attributes.ptxVersion, attributes.binaryVersion);
  code.name = fmt::format("cuda/sm_{}", code.compute);
  return code;
}

void PinnedDeleter::operator()(std::byte* data) const noexcept { cudaFreeHost(data); }
PinnedMemory AllocatePinned(size_t bytes) {
  void* data = nullptr;
  CheckCuda(cudaHostAlloc(&data, bytes, cudaHostAllocDefault), "allocating pinned host memory");
  return PinnedMemory(static_cast<std::byte*>(data));
}

void EventDeleter::operator()(void* event) const noexcept {
  cudaEventDestroy(static_cast<cudaEvent_t>(event));
}
EventHandle MakeEvent() {
  cudaEvent_t event = nullptr;
  CheckCuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  return EventHandle(event);
}
void Record(const EventHandle& event, void* stream) {
  CheckCuda(cudaEventRecord(AsEvent(event), AsStream(stream)), "recording an event");
}
void Wait(const EventHandle& event) {
  CheckCuda(cudaEventSynchronize(AsEvent(event)), "waiting for a copy to the GPU");
}

void CopyToGpu(void* to, const void* from, size_t bytes, void* stream) {
  CheckCuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, AsStream(stream)),
            "copying a step's tables to the GPU");
}
void CopyRowsOnGpu(void* to, size_t to_stride, const void* from, size_t from_stride, size_t width,
                   size_t rows, void* stream) {
  CheckCuda(cudaMemcpy2DAsync(to, to_stride, from, from_stride, width, rows,
                              cudaMemcpyDeviceToDevice, AsStream(stream)),
            "copying rows on the GPU");
}
void ZeroOnGpu(void* to, size_t bytes, void* stream) {
  CheckCuda(cudaMemsetAsync(to, 0, bytes, AsStream(stream)), "zeroing memory of the GPU");
}
void Finish(void* stream, const char* last) {
  const cudaError_t status = cudaStreamSynchronize(AsStream(stream));
  if (status == cudaSuccess) return;
  CheckCuda(status, fmt::format("waiting for the ops up to '{}'", last).c_str());
}

}  // namespace tandem::cuda
