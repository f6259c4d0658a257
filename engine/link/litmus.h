// Whether two devices see each other's stores in the order that peer links count on. On one GPU all
// meet in one cache, so a missing fence passes there: only two GPUs can tell.
//
//   message passing   d0: x = 1, fence, y = 1    d1: r = y, fence, s = x    never r = 1 and s = 0
//   store buffering   d0: x = 1, fence, r = y    d1: y = 1, fence, s = x    never r = 0 and s = 0
//   payload in slots  d0: a block's payload, barrier, fence, flag = g
//                     d1: flag = g is seen, fence, barrier, payload         never of another g
//
// Peer links rest on the first (payload, fence.acq_rel.sys, flag), and in `blocks` on the third,
// whose payload is ordinary memory that caches may keep. The second asks more
// (fence.sc.sys) and nothing here needs it; it tells whether such a fence reaches the other device
// at all. x lies with d1 and y with d0 or the other way round, so that a store has the longer way
// once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "engine/device/device.h"
#include "engine/link/peer_kernels.h"

namespace tandem {

struct LitmusCounts {
  uint64_t pairs = 0;      // that both devices went through
  uint64_t forbidden = 0;  // of these, seen in the order that must not be
};

struct LitmusSize {
  uint32_t blocks = 8;
  uint32_t threads = 128;
  uint32_t turns = 64;
};

// Both places of x and y, one after the other. Devices reach each other's memory. Throws
// Error(kDevice) where one of them does not come.
LitmusCounts RunLitmus(peer::LitmusPattern pattern, bool fenced, const LitmusSize& size, Device& d0,
                       Device& d1, PeerKernels& kernels);

// With the fences, `rounds` times each pattern. Throws Error(kDevice) naming the first that fails.
void TestOrder(Device& d0, Device& d1, PeerKernels& kernels, int rounds);

}  // namespace tandem
