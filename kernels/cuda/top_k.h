// The k largest values of rows, and their launcher. The arithmetic is said in top_k.cu.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace tandem::cuda {

uint64_t TopKScratch(uint64_t n, uint32_t width, uint32_t k);

// x (n, width) -> out (n, k). `scratch` has TopKScratch bytes.
void LaunchTopK(const float* x, uint32_t n, uint32_t width, uint32_t k, std::byte* scratch,
                TopEntry* out, void* stream);

}  // namespace tandem::cuda
