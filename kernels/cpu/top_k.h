// The k largest values of a row (kernels/ops.h), for CPU devices.
// Thread rule: any thread; no state.
#pragma once

#include <cstdint>

#include "kernels/ops.h"

namespace tandem::cpu {

// x (width) -> out (k).
void TopKOfRow(const float* x, uint32_t width, uint32_t k, TopEntry* out);

}  // namespace tandem::cpu
