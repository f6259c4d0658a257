// Int8 activations in two parts (kernels/int8_block.h), made of a tier's kernels for one.
#pragma once

#include <cstdint>

#include "kernels/cpu/tier.h"

namespace tandem::cpu {

// Panels taken at a time: a tier may take four side by side.
inline constexpr uint32_t kPanelGrain = 4;

// One row: x (blocks * 32) -> out (2, blocks), the second part what the first left over.
void QuantizeTwoParts(const Tier& tier, const float* x, uint64_t blocks, PreparedBlock* out);

// A job whose rows are in two parts.
void MultiplyTwoParts(const Tier& tier, const PanelJob& job);

}  // namespace tandem::cpu
