// What a block of a quantised type holds, taken apart: the integers of its elements and what they
// are multiplied by. The layouts are ggml's (ggml-common.h); offsets in bytes:
//   Q8_0  d f16 | 32 x int8 at 2
//   Q4_0  d f16 | nibbles at 2 (16 bytes)
//   Q4_1  d, m f16 | nibbles at 4
//   Q5_0  d f16 | fifth bits at 2 (4 bytes) | nibbles at 6
//   Q5_1  d, m f16 | fifth bits at 4 | nibbles at 8
//   Q4_K  d, dmin f16 | 8 scales and 8 minima of 6 bits at 4 (12 bytes) | nibbles at 16 (128 bytes)
//   Q5_K  d, dmin f16 | the same at 4 | fifth bits at 16 (32 bytes) | nibbles at 48
//   Q6_K  nibbles at 0 (128 bytes) | fifth and sixth bits at 128 (64) | 16 x int8 at 192 | d at 208
// An element is x = d * scale * q + added, where a run of 16 elements has one scale (1 where a type
// has none) and one added value (m, or -dmin * minimum, or 0). The products are exact in f32: at
// most 11 + 7 + 6 bits; only the addition rounds.
//
// Thread rule: no state; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/model/dtype.h"

namespace tandem {

inline constexpr uint32_t kRun = 16;             // elements that share a scale
inline constexpr uint32_t kMaxBlockElems = 256;  // of any type
inline constexpr uint32_t kKScaleBytes = 12;     // of the 6-bit scales and minima
inline constexpr uint32_t kKSubBlocks = 8;       // of 32 elements, in a block of Q4_K or Q5_K
inline constexpr uint32_t kMaxRuns = kMaxBlockElems / kRun;

struct BlockScales {
  float d = 0.0f;
  int scale[kMaxRuns];
  float added[kMaxRuns];
};

// What is taken from the stored unsigned code to give q: 8, 16, 32 or 0.
int CodeOffset(DType type);
// Whether `added` is anything but zero: Q4_1, Q5_1, Q4_K, Q5_K.
bool HasMinimum(DType type);

// q: block_elems values in the order of the row.
void ReadCodes(DType type, const std::byte* block, int8_t* q);
BlockScales ReadScales(DType type, const std::byte* block);
// Sets the elements of a block and leaves the rest of it alone.
void WriteCodes(DType type, const int8_t* q, std::byte* block);

// The 12 bytes of Q4_K and Q5_K; values below 64.
void UnpackKScales(const std::byte* at, uint8_t* scales, uint8_t* minima);
void PackKScales(const uint8_t* scales, const uint8_t* minima, std::byte* at);

}  // namespace tandem
