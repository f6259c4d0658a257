// A GPU that does everything at once, in the host's memory.
#include "kernels/cuda/runtime.h"

#include <cstring>
#include <utility>

#include "tests/support/cuda_emulation/emulation.h"
#include "tests/support/cuda_emulation/kept_launches.h"

namespace tandem::cuda {

namespace {
thread_local std::vector<std::function<void()>>* kept_launches = nullptr;
}  // namespace

void KeepLaunches(std::vector<std::function<void()>>* kept) { kept_launches = kept; }

void InStream(void*, const char*, std::function<void()> work) {
  if (kept_launches == nullptr) return work();
  kept_launches->push_back(std::move(work));
}

// Few multiprocessors, so that small tests meet both sides of the choices that depend on them.
GpuFacts ReadGpuFacts(int) { return {.sm_count = 8, .compute = 90, .l2_bytes = 1 << 20}; }
// sm_90: kernels may begin early, so those that do not wait are found.
KernelCode ReadKernelCode(int, const void*) { return {.compute = 90, .name = "cuda/emulated"}; }

void PinnedDeleter::operator()(std::byte* data) const noexcept { delete[] data; }
PinnedMemory AllocatePinned(size_t bytes) { return PinnedMemory(new std::byte[bytes]); }

void EventDeleter::operator()(void* event) const noexcept { delete static_cast<int*>(event); }
EventHandle MakeEvent() { return EventHandle(new int(0)); }
void Record(const EventHandle&, void*) {}
void Wait(const EventHandle&) {}

void CopyToGpu(void* to, const void* from, size_t bytes, void*) { std::memcpy(to, from, bytes); }
void CopyRowsOnGpu(void* to, size_t to_stride, const void* from, size_t from_stride, size_t width,
                   size_t rows, void* stream) {
  InStream(stream, "copy of rows", [=] {
    for (size_t row = 0; row < rows; ++row) {
      std::memcpy(static_cast<std::byte*>(to) + row * to_stride,
                  static_cast<const std::byte*>(from) + row * from_stride, width);
    }
  });
}
void ZeroOnGpu(void* to, size_t bytes, void* stream) {
  InStream(stream, "zero", [=] { std::memset(to, 0, bytes); });
}
void Finish(void*, const char*) {}

}  // namespace tandem::cuda
