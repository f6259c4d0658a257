// The arithmetic of wire.h for one element or one block's lane, for kernels; the emulated platform
// compiles it for the host, and tests hold it to the bits of wire.cc. Multiplications and additions
// are kept apart: nothing may be contracted.
#pragma once

#include <gpu_platform.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace tandem::wire_math {

inline constexpr float kLargestF16 = 65504.0f;
inline constexpr uint16_t kNanF16 = 0x7e00;

__device__ __forceinline__ uint32_t BitsOf(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
__device__ __forceinline__ float FloatOf(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// To nearest, ties to even; a NaN keeps its upper bits and is made quiet.
__device__ __forceinline__ uint16_t ToBf16(float x) {
  const uint32_t bits = BitsOf(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x0040u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
__device__ __forceinline__ float FromBf16(uint16_t bits) { return FloatOf(uint32_t{bits} << 16); }

__device__ __forceinline__ bool IsFinite(float x) {
  return (BitsOf(x) & 0x7f800000u) != 0x7f800000u;
}

// The scale of a block whose largest magnitude is given, as the f16 that travels.
__device__ __forceinline__ uint16_t ScaleBits(bool finite, float largest) {
  if (!finite) return kNanF16;
  const float scale = largest / 127.0f;
  return cuda::FloatToHalf(scale < kLargestF16 ? scale : kLargestF16);
}
__device__ __forceinline__ float ScaleOf(uint16_t bits) { return cuda::HalfToFloat(bits); }

__device__ __forceinline__ int8_t Quantize(float x, uint16_t scale_bits) {
  const float scale = ScaleOf(scale_bits);
  if (scale_bits == kNanF16 || scale == 0.0f) return 0;
  const float q = nearbyintf(x / scale);
  return static_cast<int8_t>(q < -127.0f ? -127.0f : q > 127.0f ? 127.0f : q);
}
__device__ __forceinline__ float Dequantize(uint16_t scale_bits, int8_t q) {
  return ScaleOf(scale_bits) * static_cast<float>(q);
}

}  // namespace tandem::wire_math
