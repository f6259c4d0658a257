// What kernels over rows share.
#pragma once

#include "engine/device/cuda/native/row_norm.cuh"
#include "kernels/cuda/launch.cuh"

namespace tandem::cuda {

// silu(gate) * up.
__device__ __forceinline__ float GatedUp(float gate, float up) {
  return gate / (1.0f + expf(-gate)) * up;
}

}  // namespace tandem::cuda
