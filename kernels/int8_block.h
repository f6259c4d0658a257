// How activations become int8, by definition for every back end.
//
// A block is 32 consecutive elements of a row. With m = max |x| over the block:
//   scale = m / 127,  q = round_to_nearest_even(x * (127 / m)),  -127 <= q <= 127
// A block with m < kInt8Tiny is all zeros with scale 0; one that holds a NaN or an infinity gets
// q = 0 and scale NaN, so that the trouble shows in every output it meets.
//
// A product of a quantised weight row with such a row is, per block b, exact in int32:
//   Q8_0, Q4_0:  acc += (d_b * scale_b) * sum(w * q)
//   Q4_1:        acc += (d_b * scale_b) * sum(w * q) + m_b * (scale_b * sum(q))
// and the blocks are added in order in f32.
#pragma once

#include <cstdint>

namespace tandem {

inline constexpr uint64_t kInt8Block = 32;
inline constexpr float kInt8Tiny = 1e-30f;

}  // namespace tandem
