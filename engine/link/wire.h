// Activations as they travel: f32 as it is, bf16, or q8 (blocks of 32 int8 with an f16 scale; the
// last block of a message may be short). Encoding rounds to nearest even, the same on every rank.
//
// q8, per block with m = max |x|: scale = f16(m / 127), q = round(x / scale) within [-127, 127];
// laid out as 2 bytes of scale, then the block's int8.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/plan/plan.h"

namespace tandem {

inline constexpr uint64_t kWireBlock = 32;

// `out` has room for WireBytes(wire, n).
void EncodeWire(WireType wire, const float* x, uint64_t n, std::byte* out);
// y = decoded
void DecodeWire(WireType wire, const std::byte* in, uint64_t n, float* y);
// y += decoded
void DecodeAddWire(WireType wire, const std::byte* in, uint64_t n, float* y);
// y = what a receiver would see of x; y may be x. The identity for f32.
void RoundToWire(WireType wire, const float* x, uint64_t n, float* y);

}  // namespace tandem
