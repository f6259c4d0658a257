// The emulated side of engine/device/cuda/native/gpu_platform.h: the same names, as plain C++ for
// host threads. The include path says which of the two a kernel is compiled against.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>

#include "tests/support/cuda_emulation/emulation.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) int4 {
  int32_t x, y, z, w;
};

inline void __syncthreads() { tandem::cuda::BlockBarrier(); }
inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
// Apart, whatever the compiler makes of other sums (these sources are compiled without
// contraction).
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __int_as_float(int32_t bits) { return __uint_as_float(static_cast<uint32_t>(bits)); }
inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

namespace tandem::cuda {

// early: every thread must wait for the kernel before.
template <typename... P, typename... A>
void LaunchAs(bool early, const char* what, void (*kernel)(P...), dim3 grid, dim3 block,
              uint32_t shared_bytes, void* stream, const A&... args) {
  // Arguments are copied when the launch is asked for.
  const std::tuple<P...> held(static_cast<P>(args)...);
  InStream(stream, what, [=] {
    const auto call = [&] { std::apply(kernel, held); };
    using Call = decltype(call);
    RunGrid(
        grid, block, shared_bytes, [](void* context) { (*static_cast<Call*>(context))(); },
        const_cast<void*>(static_cast<const void*>(&call)), early);
  });
}
template <typename... P, typename... A>
void Launch(const char* what, void (*kernel)(P...), dim3 grid, dim3 block, uint32_t shared_bytes,
            void* stream, const A&... args) {
  LaunchAs(false, what, kernel, grid, block, shared_bytes, stream, args...);
}

inline void WaitForPrevious() { CountWait(); }
// Touches memory, so that a sanitizer sees what lies outside.
inline void PrefetchL2(const void* at) {
  static_cast<void>(*static_cast<const volatile std::byte*>(at));
}

inline std::byte* DynamicShared() { return SharedMemory(); }

// The bits of an f16 as f32, and back (to nearest, ties to even).
float HalfToFloat(uint16_t bits);
uint16_t FloatToHalf(float value);
inline uint32_t PackHalves(float first, float second) {
  return FloatToHalf(first) | uint32_t{FloatToHalf(second)} << 16;
}

inline float FastExp2(float x) {
  const float result = std::exp2(x);
  return result < 0x1p-126f ? 0.0f : result;
}

// The value of the lane whose number differs in the bits of `mask`.
float ShuffleXor(float value, int mask);

bool AllLanes(bool holds);

inline void SyncWarp() {
  WarpRendezvous(nullptr, [](void* const*) {});
}

template <typename T>
T LoadOnce(const T* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

void MmaS8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const int32_t (&c)[4]);
void MmaS8Half(int32_t (&d)[4], const uint32_t (&a)[2], uint32_t b, const int32_t (&c)[4]);
void MmaBf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void MmaF16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void LoadTransposed(uint32_t (&to)[4], const void* row);

inline void CopyAsync16(void* to, const void* from, bool inside) {
  BeginCopy(to, inside ? from : nullptr, 16);
}
inline void CopyAsync4(void* to, const void* from) { BeginCopy(to, from, 4); }
inline void CommitCopies() { EndCopyGroup(); }
template <int kPending>
void WaitCopies() {
  FinishCopyGroups(kPending);
}

}  // namespace tandem::cuda
