// What a GPU does at its best at the moment, as the measure of kernels: BF16 products by cuBLAS
// (reading memory is in kernels/cuda/probe_kernels.h). And the time that work on a stream takes, by
// events.
//
// Thread rule: one host thread, with the GPU current.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace tandem::cuda {

// Median seconds of `body`, which asks the stream for work, over `rounds`.
double StreamSeconds(void* stream, int rounds, const std::function<void()>& body);

// Operations a second of a BF16 product of n x n matrices with f32 sums (random values: zeros are
// multiplied faster). a, b (n, n) BF16, c (n, n) f32.
double GemmOpsPerSecond(const void* a, const void* b, void* c, int n, void* stream);

}  // namespace tandem::cuda
