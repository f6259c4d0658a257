// What the emulated NCCL was asked for, for tests that want to know by which way values came.
#pragma once

#include <cstdint>

namespace tandem::emulated {

struct NcclCallCounts {
  uint64_t messages = 0;        // sends with their receives
  uint64_t window_gathers = 0;  // gathers within windows, of all ranks together
  uint64_t plain_gathers = 0;
  uint64_t communicators = 0;  // made
  uint64_t allocations = 0;    // of ncclMemAlloc, not yet given back
};
NcclCallCounts& NcclCounts();

}  // namespace tandem::emulated
