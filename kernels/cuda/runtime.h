// The few calls of the CUDA runtime that the host side of the ops makes: native/runtime.cc, or the
// emulation's, where copies are made at once.
//
// All throw Error(kDevice) naming `what` and the runtime's own words. Thread rule: as CUDA's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace tandem::cuda {

struct GpuFacts {
  int sm_count = 0;
  int compute = 0;  // 10 * major + minor
  uint64_t l2_bytes = 0;
};
GpuFacts ReadGpuFacts(int device);

// What a kernel was compiled for, which is older than its GPU where no better code was built: such
// code the driver may translate for the GPU, but what it was written to leave out stays left out.
struct KernelCode {
  int compute = 0;   // 10 * major + minor
  std::string name;  // of the back end, recorded with results: "cuda/sm_90"
};
KernelCode ReadKernelCode(int device, const void* kernel);

// Host memory that copies may read while the host goes on.
struct PinnedDeleter {
  void operator()(std::byte* data) const noexcept;
};
using PinnedMemory = std::unique_ptr<std::byte[], PinnedDeleter>;
PinnedMemory AllocatePinned(size_t bytes);

struct EventDeleter {
  void operator()(void* event) const noexcept;
};
using EventHandle = std::unique_ptr<void, EventDeleter>;
EventHandle MakeEvent();
void Record(const EventHandle& event, void* stream);
void Wait(const EventHandle& event);  // at once where it was never recorded

// Work on a stream.
void CopyToGpu(void* to, const void* from, size_t bytes, void* stream);
void CopyRowsOnGpu(void* to, size_t to_stride, const void* from, size_t from_stride, size_t width,
                   size_t rows, void* stream);  // in bytes
void ZeroOnGpu(void* to, size_t bytes, void* stream);
// Waits for all of it. `last`: the op that was asked for last.
void Finish(void* stream, const char* last);

}  // namespace tandem::cuda
