// The arithmetic of wire.h for one element or one block's lane, compiled for GPUs by wire.cu and
// for the host by its test, which holds it to the bits of wire.cc. Multiplications and additions
// are kept apart: nothing may be contracted.
#pragma once

#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define TANDEM_WIRE_FN __host__ __device__ inline
#else
#define TANDEM_WIRE_FN inline
#endif

namespace tandem::wire_math {

inline constexpr float kLargestF16 = 65504.0f;
inline constexpr uint16_t kNanF16 = 0x7e00;

TANDEM_WIRE_FN uint32_t BitsOf(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
TANDEM_WIRE_FN float FloatOf(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// To nearest, ties to even; a NaN keeps its upper bits and is made quiet.
TANDEM_WIRE_FN uint16_t ToBf16(float x) {
  const uint32_t bits = BitsOf(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x0040u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
TANDEM_WIRE_FN float FromBf16(uint16_t bits) { return FloatOf(uint32_t{bits} << 16); }

TANDEM_WIRE_FN bool IsFinite(float x) { return (BitsOf(x) & 0x7f800000u) != 0x7f800000u; }

// The scale of a block whose largest magnitude is given, as the f16 that travels.
TANDEM_WIRE_FN uint16_t ScaleBits(bool finite, float largest) {
  if (!finite) return kNanF16;
  const float scale = largest / 127.0f;
  return __half_as_ushort(__float2half_rn(scale < kLargestF16 ? scale : kLargestF16));
}
TANDEM_WIRE_FN float ScaleOf(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }

TANDEM_WIRE_FN int8_t Quantize(float x, uint16_t scale_bits) {
  const float scale = ScaleOf(scale_bits);
  if (scale_bits == kNanF16 || scale == 0.0f) return 0;
  const float q = nearbyintf(x / scale);
  return static_cast<int8_t>(q < -127.0f ? -127.0f : q > 127.0f ? 127.0f : q);
}
TANDEM_WIRE_FN float Dequantize(uint16_t scale_bits, int8_t q) {
  return ScaleOf(scale_bits) * static_cast<float>(q);
}

}  // namespace tandem::wire_math
