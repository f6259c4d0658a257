#include "engine/plan/link_memory.h"

namespace tandem {
namespace {

constexpr uint64_t kWays = 2;  // words and blocks

// One direction of a pair: slots of all-reduces and of sends, and the sends' acknowledgements.
constexpr uint64_t kDirection = 2 * (kPeerWordsSlots + kPeerBlocksSlots) + kWays * kPeerAcks;

}  // namespace

LinkMemory LinkMemoryOf(PathKind path, uint32_t cards) {
  if (cards < 2 || (path != PathKind::kP2p && path != PathKind::kHostStaged)) return {};
  const uint64_t peers = cards - 1;
  // A card counts its all-reduces, and what it sends to and takes from every other.
  const uint64_t own = kPeerAbort + kWays * kPeerCounts * (1 + 2 * peers);
  LinkMemory memory{.card = Bytes{own}, .host = Bytes{kPeerFailure * cards}};
  if (path == PathKind::kP2p) {
    memory.card += Bytes{peers * kDirection};
  } else {
    memory.host += Bytes{cards * peers * (kDirection + kHostStagingBytes)};
  }
  return memory;
}

}  // namespace tandem
