// What the emulated NCCL was asked for, for tests that want to know by which way values came, and
// what is to go wrong in it.
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

struct NcclFaultPlan {
  uint64_t failing_sends = 0;    // of those to come, the first that are refused
  uint64_t failing_gathers = 0;  // likewise
  uint64_t hanging = 0;          // of messages and gathers to come, the first that wait for ever
  bool async_error = false;      // what communicators say of themselves
};
NcclFaultPlan& NcclFaults();

}  // namespace tandem::emulated
