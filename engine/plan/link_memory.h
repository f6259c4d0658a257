// What the transport of a path takes of memory, of each card that it joins and of the host's:
// closed forms, so that a plan's table has them before any transport is made (engine/link takes
// exactly so much; tests hold it to that). Messages of every size go through the same slots, so
// none depends on a plan's largest message.
//
// Not here: what NCCL takes, its windows included. It is the library's own, no ledger has it, and
// what is kept free of every GPU (kGpuReserve) covers it.
#pragma once

#include <cstdint>

#include "engine/base/units.h"
#include "engine/rig/rig.h"

namespace tandem {

// The chunk through which the host_staged path moves its bytes, in the host's memory.
inline constexpr uint64_t kHostStagingBytes = uint64_t{1} << 18;

// Of peer links (engine/link/peer_layout.h): slots of one direction of a pair, for messages that
// cross as words and as blocks; acknowledgements of a direction; counts of a rank; the word by
// which it gives up; what it leaves for the host when it does.
inline constexpr uint64_t kPeerWordsSlots = 264192;
inline constexpr uint64_t kPeerBlocksSlots = 1050624;
inline constexpr uint64_t kPeerAcks = 1024;
inline constexpr uint64_t kPeerCounts = 64;
inline constexpr uint64_t kPeerAbort = 64;
inline constexpr uint64_t kPeerFailure = 8;
// What the path p2p tries its ways with, on each card, before anything but its slots is there.
inline constexpr uint64_t kPeerProbe = uint64_t{2} << 20;

struct LinkMemory {
  Bytes card;  // each of them
  Bytes host;
};
// Of a resolved path between GPUs. With n cards, S = 2 * (words' slots + blocks' +
// acknowledgements), for all-reduces and for sends, and C = the words and counts of a card:
//   p2p          (n - 1) * S + C a card; a word of failure each in the host's memory
//   host_staged  C a card; n * (n - 1) * (S + a staging chunk) in the host's memory, and the words
//   others       nothing
LinkMemory LinkMemoryOf(PathKind path, uint32_t cards);

}  // namespace tandem
