// What the kernels of peer links ask of a GPU beyond <gpu_platform.h>: barriers that carry an
// answer, a clock, and memory that two devices share. This is the side for nvcc;
// tests/support/cuda_emulation/peer_platform.h is the side for a machine without a GPU, which runs
// the same kernel sources. The include path says which.
//
// Memory as the PTX memory model has it. Words and lines are *strong* operations at system scope:
// two of them on the same bytes from two devices never race, one is before the other, whole (the
// model promises that for scalars; a line is two scalars of 8 bytes, each with a flag of its own).
// They order nothing else: that is what FenceSystem() and barriers are for.
// Minimum hardware: sm_80.
#pragma once

#include <gpu_platform.h>

#include <cstddef>
#include <cstdint>

namespace tandem::cuda {

// Starts kernel(args) in `blocks` blocks on the stream.
template <typename Args>
void LaunchPeer(const char* what, void (*kernel)(Args), uint32_t blocks, uint32_t threads,
                void* stream, const Args& args, uint32_t shared_bytes = 0) {
  Launch(what, kernel, dim3(blocks), dim3(threads), shared_bytes, stream, args);
}

// A barrier of the block's threads; true for all where one of them says so.
__device__ __forceinline__ bool BarrierOr(bool value) {
  return __syncthreads_or(value ? 1 : 0) != 0;
}
struct Line {
  uint64_t low, high;
};
__device__ __forceinline__ void StoreLine(void* to, Line line) {
  asm volatile("st.relaxed.sys.global.v2.b64 [%0], {%1, %2};" ::"l"(to), "l"(line.low),
               "l"(line.high)
               : "memory");
}
__device__ __forceinline__ Line LoadLine(const void* from) {
  Line line;
  asm volatile("ld.relaxed.sys.global.v2.b64 {%0, %1}, [%2];"
               : "=l"(line.low), "=l"(line.high)
               : "l"(from)
               : "memory");
  return line;
}
__device__ __forceinline__ void StoreWord(uint32_t* to, uint32_t value) {
  asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
__device__ __forceinline__ uint32_t LoadWord(const uint32_t* from) {
  uint32_t value;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
__device__ __forceinline__ void StoreLong(uint64_t* to, uint64_t value) {
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(to), "l"(value) : "memory");
}

// Everything that this thread did or saw before (a barrier makes it see what its block did) is
// before everything it does after, for every device that sees a later store of it and fences too.
__device__ __forceinline__ void FenceSystem() { asm volatile("fence.acq_rel.sys;" ::: "memory"); }

// And no load after it is before a store before it: all such fences have one order.
__device__ __forceinline__ void FenceSequential() { asm volatile("fence.sc.sys;" ::: "memory"); }

// Ordinary stores and loads of payload; FenceSystem() and a flag order them.
template <typename T>
__device__ __forceinline__ void StorePayload(void* to, T value) {
  *static_cast<T*>(to) = value;
}
template <typename T>
__device__ __forceinline__ T LoadPayload(const void* from) {
  return *static_cast<const T*>(from);
}

// One clock for the whole GPU. It ticks in steps of up to a microsecond on some.
__device__ __forceinline__ uint64_t NowNanos() {
  uint64_t nanos;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(nanos)::"memory");
  return nanos;
}
// Between two looks at a word that has not come.
__device__ __forceinline__ void Pause() {}

}  // namespace tandem::cuda
