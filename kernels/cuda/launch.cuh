// How this folder's kernels are started (launch.h).
#pragma once

#include <gpu_platform.h>

#include "kernels/cuda/launch.h"

namespace tandem::cuda {

template <typename... P, typename... A>
void LaunchEarly(const char* what, void (*kernel)(P...), dim3 grid, dim3 block,
                 uint32_t shared_bytes, const GpuStream& stream, const A&... args) {
  LaunchAs(stream.early, what, kernel, grid, block, shared_bytes, stream.handle, args...);
}

}  // namespace tandem::cuda
