// The kernels of wire.cu. Pointers are in memory that the stream's GPU reaches, which is the
// calling thread's current one; n > 0 floats; bytes as engine/link/wire.h lays them. Throw
// Error(kDevice).
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/plan/plan.h"

namespace tandem::cuda {

// bf16 and q8: on an f32 wire these are plain copies.
void LaunchEncode(WireType wire, const float* x, uint64_t n, std::byte* out, void* stream);
void LaunchRound(WireType wire, const float* x, uint64_t n, float* y, void* stream);
void LaunchDecode(WireType wire, const std::byte* in, uint64_t n, float* y, void* stream);
void LaunchDecodeAdd(WireType wire, const std::byte* in, uint64_t n, float* y, void* stream);

}  // namespace tandem::cuda
