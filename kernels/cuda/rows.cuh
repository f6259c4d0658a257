// What kernels over rows share.
#pragma once

#include "engine/device/cuda/native/row_norm.cuh"
#include "kernels/cuda/launch.cuh"

namespace tandem::cuda {

// A value as BF16, rounded to nearest even.
__device__ __forceinline__ uint32_t Bf16Bits(float value) {
  const uint32_t bits = __float_as_uint(value);
  if (!(fabsf(value) <= INFINITY)) return (bits >> 16) | 0x40u;  // a NaN stays one
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

// silu(gate) * up.
__device__ __forceinline__ float GatedUp(float gate, float up) {
  return gate / (1.0f + expf(-gate)) * up;
}

}  // namespace tandem::cuda
