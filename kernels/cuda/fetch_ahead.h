// How far ahead of their use the products of few rows bring weights into the L2 cache.
//
// To keep memory busy a multiprocessor must have some 64 KiB under way (4.8 TB/s and 1.5 us, over
// 132 of them). What its warps hold in registers is one group of columns each: 27 KiB of 4-bit
// weights in 24 warps, and a third of that where a product has one block a multiprocessor. The rest
// is fetched into L2, as many groups of a chain ahead as it takes, but no more than half of L2
// holds.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/layout.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/runtime.h"

namespace tandem::cuda {

inline constexpr uint64_t kBytesUnderWay = 64 << 10;
inline constexpr uint64_t kBlocksResident = 3;  // of the products of few rows, by their registers
inline constexpr uint32_t kMostAhead = 8;

// Bytes of a whole group of 16 rows.
constexpr uint64_t GroupBytesOf(DType type) {
  if (!IsQuantised(type)) return uint64_t{kPanelRows} * kBf16Cols * PlainBytes(type);
  return FormatOf(type).GroupBytes(kGroupBlocks) + kPanelRows * FormatOf(type).header / 2;
}

// Groups of each chain; 0: none. For a product of `panels` panels.
inline uint32_t GroupsAhead(DType type, uint32_t panels, const GpuFacts& facts) {
  const uint64_t sms = static_cast<uint64_t>(std::max(facts.sm_count, 1));
  const uint64_t blocks = std::clamp<uint64_t>((panels + sms - 1) / sms, 1, kBlocksResident);
  const uint64_t round = blocks * kChains * GroupBytesOf(type);  // a group for each warp
  const uint64_t wanted = (kBytesUnderWay + round - 1) / round;
  const uint64_t held = facts.l2_bytes / 2 / sms / round;
  return static_cast<uint32_t>(std::min({wanted, held, uint64_t{kMostAhead}}));
}

}  // namespace tandem::cuda
