// How activations become int8, by definition for every back end.
//
// A block is 32 consecutive elements of a row. With m = max |x| over the block:
//   scale = m / 127,  q = round_to_nearest_even(x * (127 / m)),  -127 <= q <= 127
// A block with m < kInt8Tiny is all zeros with scale 0; one that holds a NaN or an infinity gets
// q = 0 and scale NaN, so that the trouble shows in every output it meets.
//
// A row in two parts is that, and the same of what it left over, x - scale * q, each product and
// difference rounded. A product with it is the sum of the products with its parts, in that order.
//
// A product of a quantised weight row with such a row is, per block b of 32 columns, exact in
// int32:
// clang-format off
//   Q8_0, Q4_0, Q5_0:  acc += (d * scale_b) * sum(w * q)
//   Q4_1, Q5_1:        acc += (d * scale_b) * sum(w * q)
//                      acc += m * (scale_b * sum(q))
//   Q4_K, Q5_K:        acc += ((d * sc) * scale_b) * sum(w * q)
//                      acc -= (dmin * mn) * (scale_b * sum(q))
//   Q6_K:              acc += (d * scale_b) * (sc0 * sum0(w * q) + sc1 * sum1(w * q))
// clang-format on
// with w the stored integer less its offset (8, 16 or 32 where the type has one), sc and mn the
// block's 6-bit scale and minimum, sc0 and sc1 the 8-bit scales of its halves of 16 columns. Blocks
// are added in order in f32, one chain an output. d * sc and dmin * mn are exact in f32, and so is
// the bracket of Q6_K (below 2^24); every other product and sum rounds once, except that a tier may
// fuse a product with the sum it goes into, and take d into the bracket of Q6_K: d * sc0 and d *
// sc1 are exact, their products with sums and the sum of these round.
#pragma once

#include <cstdint>

namespace tandem {

inline constexpr uint64_t kInt8Block = 32;
inline constexpr float kInt8Tiny = 1e-30f;

}  // namespace tandem
