// What the kernels of all rooms ask of a GPU beyond C++: launches, conversions, warp operations,
// tensor cores, asynchronous copies. This is the side for nvcc;
// tests/support/cuda_emulation/gpu_platform.h is the side for a machine without a GPU, which runs
// the same kernel sources. The include path says which.
//
// Tensor-core operations are warp-wide, with the fragments of the PTX ISA for mma.sync.m16n8k*:
// lane 4g + t holds rows g and g + 8 of A, column g of B, columns 2t and 2t + 1 of C.
// Minimum hardware: sm_80.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <nv/target>

namespace tandem::cuda {

// Throws Error(kDevice) that names the kernel. (handles.cc)
void CheckLaunch(cudaError_t status, const char* what);

// Starts kernel(args...) on the stream; early: while the kernel before it may still run (sm_90 and
// later). Such a kernel calls WaitForPrevious in every thread.
template <typename... P, typename... A>
void LaunchAs(bool early, const char* what, void (*kernel)(P...), dim3 grid, dim3 block,
              uint32_t shared_bytes, void* stream, const A&... args) {
  if (shared_bytes > 48 * 1024) {
    CheckLaunch(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(shared_bytes)),
                what);
  }
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &overlap;
  config.numAttrs = early ? 1 : 0;
  CheckLaunch(cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...), what);
}
template <typename... P, typename... A>
void Launch(const char* what, void (*kernel)(P...), dim3 grid, dim3 block, uint32_t shared_bytes,
            void* stream, const A&... args) {
  LaunchAs(false, what, kernel, grid, block, shared_bytes, stream, args...);
}

// Waits until the kernel before it in the stream has ended, with all that it wrote, where this one
// was started early; then lets the next one be started. Nothing before sm_90.
__device__ __forceinline__ void WaitForPrevious() {
  NV_IF_TARGET(NV_PROVIDES_SM_90, (asm volatile("griddepcontrol.wait;" :: : "memory"); asm volatile(
                                       "griddepcontrol.launch_dependents;" :: : "memory");))
}
// Brings 128 bytes of global memory into the L2 cache; nothing is read.
__device__ __forceinline__ void PrefetchL2(const void* at) {
  asm volatile("prefetch.global.L2 [%0];" : : "l"(at));
}

__device__ __forceinline__ std::byte* DynamicShared() {
  extern __shared__ uint4 tandem_dynamic_shared[];
  return reinterpret_cast<std::byte*>(tandem_dynamic_shared);
}

__device__ __forceinline__ float HalfToFloat(uint16_t bits) {
  return __half2float(__ushort_as_half(bits));
}
__device__ __forceinline__ uint16_t FloatToHalf(float value) {
  return __half_as_ushort(__float2half_rn(value));
}
// Two at once, the first in the low bits.
__device__ __forceinline__ uint32_t PackHalves(float first, float second) {
  const __half2 packed = __floats2half2_rn(first, second);
  return reinterpret_cast<const uint32_t&>(packed);
}

// 2^x to some 22 bits, by one instruction; tiny results are zeros.
__device__ __forceinline__ float FastExp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

__device__ __forceinline__ float ShuffleXor(float value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
__device__ __forceinline__ bool AllLanes(bool holds) { return __all_sync(0xffffffffu, holds) != 0; }
__device__ __forceinline__ void SyncWarp() { __syncwarp(); }

// Weights: read once a call, as a stream that caches need not keep.
template <typename T>
__device__ __forceinline__ T LoadOnce(const T* from) {
  return __ldcs(from);
}

// Integer products start from c, which stays: d = a b + c.
__device__ __forceinline__ void MmaS8(int32_t (&d)[4], const uint32_t (&a)[4],
                                      const uint32_t (&b)[2], const int32_t (&c)[4]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%11,%12,%13};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(c[0]), "r"(c[1]),
        "r"(c[2]), "r"(c[3]));
}
__device__ __forceinline__ void MmaS8Half(int32_t (&d)[4], const uint32_t (&a)[2], uint32_t b,
                                          const int32_t (&c)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%7,%8,%9,%10};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}
__device__ __forceinline__ void MmaBf16(float (&c)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void MmaF16(float (&c)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8 x 8 matrices of 16-bit elements, transposed: lane 8i + r gives row r of matrix i (16 bytes
// of shared memory), lane (g, t) gets elements (2t, g) and (2t + 1, g) of matrix i in to[i].
__device__ __forceinline__ void LoadTransposed(uint32_t (&to)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

// 16 bytes from global to shared memory without passing through registers; zeros where not inside
// (`from` is then not read, but must be a valid address).
__device__ __forceinline__ void CopyAsync16(void* to, const void* from, bool inside) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int bytes = inside ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(address), "l"(from), "r"(bytes)
               : "memory");
}
// The same of 4 bytes.
__device__ __forceinline__ void CopyAsync4(void* to, const void* from) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" : : "r"(address), "l"(from) : "memory");
}
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until at most kPending of the newest groups of this thread are under way.
template <int kPending>
__device__ __forceinline__ void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace tandem::cuda
