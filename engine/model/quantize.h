// Pieces that the quantisers of one block share; internal to the model room.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/model/dtype.h"

namespace tandem {

// Truncates to an integer in [low, high]; NaN gives low. The clamp matters only where 1/d
// overflowed (subnormal rows) or the input is not finite: there a bare cast would be undefined.
inline int ClampToInt(float value, int low, int high) {
  if (!(value > static_cast<float>(low))) {
    return low;
  }
  return value >= static_cast<float>(high) ? high : static_cast<int>(value);
}

inline float Inverse(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

// One block of a K type.  x (256)
void QuantizeKBlock(DType type, const float* x, std::byte* block);

}  // namespace tandem
