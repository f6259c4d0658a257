// Where the kernels of peer links (cuda/p2p_protocol.cuh) leave what they send, and what they are
// told: plain data that both sides of a launch agree on. PeerLink (peer_link.h) makes it.
//
// A block of threads works for one channel: block c of one rank talks to block c of another and to
// no other. A channel has its own slots, generation and acknowledgement, so that messages of any
// size and any number of blocks may follow one another. A message is cut into chunks; chunk i goes
// through channel i % channels.
//
// For every ordered pair of ranks, both of the ways a chunk may cross:
//   words   every 8 bytes hold 4 of payload and 4 of the generation that they belong to, so that
//           whoever reads them knows by themselves whether they have come. For small messages.
//   blocks  payload as it is in its wire form; its generation in a flag behind it. For large ones.
// Slots come in twos: chunk g of a channel goes through slot g % 2.
//
// All of it begins as zeros; the first generation is 1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem::peer {

inline constexpr uint32_t kMaxRanks = 16;
inline constexpr uint32_t kChannels = 16;
inline constexpr uint32_t kThreads = 256;  // of a block
inline constexpr uint32_t kWarp = 32;
inline constexpr uint32_t kQuad = 4;  // elements that a thread treats at a time

enum class Way : uint8_t { kWords, kBlocks };
inline constexpr size_t kWays = 2;

// Two words with their generation each: what is stored and read at once.
inline constexpr uint32_t kLineBytes = 16;
inline constexpr uint32_t kLinesPerQuad = 2;  // f32 takes both, the others the first

// Elements of a chunk: multiples of the wire's blocks, so that cutting changes no value.
inline constexpr uint32_t kWordsElems = kThreads * kQuad;
inline constexpr uint32_t kBlocksElems = 8192;

// A slot opens with a header: the line that holds when its message was sent (on links shaped to a
// profile), and the flag of `blocks`, away from the data.
inline constexpr uint32_t kStampAt = 0;
inline constexpr uint32_t kFlagAt = 32;
inline constexpr uint32_t kDataAt = 64;
inline constexpr uint64_t kWordsSlotBytes =
    kDataAt + uint64_t{kThreads} * kLinesPerQuad * kLineBytes;
// The most that 8192 elements take: as f32. On q8 the scales follow the values.
inline constexpr uint64_t kBlocksSlotBytes = kDataAt + uint64_t{kBlocksElems} * 4;

constexpr uint64_t SlotBytes(Way way) {
  return way == Way::kWords ? kWordsSlotBytes : kBlocksSlotBytes;
}
constexpr uint64_t ChunkElems(Way way) { return way == Way::kWords ? kWordsElems : kBlocksElems; }
constexpr uint64_t LaneBytes(Way way) { return uint64_t{kChannels} * 2 * SlotBytes(way); }

// Acknowledgements of a channel lie this far apart.
inline constexpr uint32_t kAckStride = 64;

// In generations whose low bits are these (0 and 1: one for either slot), a writer fills the words
// of a slot that its message leaves unused too. So no word keeps a generation so old that the count
// could have come round to it again.
inline constexpr uint32_t kSweepMask = 0xffff;

// What a kernel that gave up leaves for the host: kFailed, the op it was for, who was waited for.
inline constexpr uint64_t kFailed = uint64_t{1} << 63;
constexpr uint64_t FailureWord(uint32_t op, uint32_t peer) {
  return kFailed | uint64_t{peer} << 32 | op;
}
constexpr uint32_t FailedOp(uint64_t word) { return static_cast<uint32_t>(word); }
constexpr uint32_t FailedPeer(uint64_t word) { return static_cast<uint32_t>(word >> 32) & 0xffffu; }

// How long a kernel waits, and what it does when nobody comes.
struct Bound {
  uint32_t* abort = nullptr;    // on the rank's device: not zero once one of its kernels gave up
  uint64_t* failure = nullptr;  // in the host's memory, see FailureWord()
  uint64_t nanos = 0;
  uint32_t op = 0;
};

struct ReduceArgs {
  const float* in = nullptr;  // (n)
  float* out = nullptr;       // (n)
  uint64_t n = 0;
  uint32_t rank = 0;
  uint32_t ranks = 0;
  std::byte* to[kMaxRanks] = {};          // by reader: the slots that this rank fills
  const std::byte* from[kMaxRanks] = {};  // by writer: those filled for this rank
  uint32_t* generations = nullptr;        // (kChannels), on the rank's device
  Bound bound;
  uint64_t shaped_nanos = 0;  // what the message takes on the link that is played; 0: as it comes
};

// An all-reduce of rows, of which no more is wanted than with a residual added, and their norms. A
// block takes a row at a time and as many channels as the row has chunks, its own: block b those
// from b * row_channels on.
struct RowsArgs {
  ReduceArgs reduce;  // in (rows, width), n of all rows; `out` is not written
  uint32_t width = 0;
  uint32_t row_channels = 0;        // RowChannels(width)
  const float* residual = nullptr;  // (rows, width)
  float* sum = nullptr;             // (rows, width)
  const float* weights = nullptr;   // (width); null: no norm
  float eps = 0.0f;
  float* norm = nullptr;  // (rows, width)
};
constexpr uint64_t RowChannels(uint64_t width) { return (width + kWordsElems - 1) / kWordsElems; }

// One direction of a pair, either end.
struct SendArgs {
  const float* in = nullptr;  // (n); the sender's
  float* out = nullptr;       // (n); the receiver's
  uint64_t n = 0;
  uint32_t peer = 0;
  std::byte* slots = nullptr;
  std::byte* acks = nullptr;  // (kChannels) of kAckStride bytes: the last generation taken
  uint32_t* generations = nullptr;
  Bound bound;
  uint64_t shaped_nanos = 0;
};

// Runs of bytes between two memories that the device reaches.
struct CopyArgs {
  std::byte* to = nullptr;
  uint64_t to_stride = 0;
  const std::byte* from = nullptr;
  uint64_t from_stride = 0;
  uint64_t row_bytes = 0;
  uint64_t rows = 1;
  uint64_t shaped_nanos = 0;
};

// For litmus.h: words in pairs, kLitmusStride words apart, so that none shares a sector.
enum class LitmusPattern : uint8_t { kMessagePassing, kStoreBuffering, kSlots };
inline constexpr uint32_t kLitmusStride = 16;
inline constexpr uint32_t kLitmusDone = 8;  // set in what was seen of a pair; the bits below are it

constexpr uint64_t LitmusSlotBytes(uint64_t threads) { return kDataAt + threads * 16; }

struct LitmusArgs {
  LitmusPattern pattern = LitmusPattern::kMessagePassing;
  bool fenced = true;
  uint32_t role = 0;      // 0 or 1
  uint32_t turns = 0;     // pairs of a thread
  uint32_t* x = nullptr;  // of kSlots: two slots a block, LitmusSlotBytes() each
  uint32_t* y = nullptr;
  uint32_t* seen = nullptr;         // by pair, on the own device
  uint32_t* here = nullptr;         // by block: the turn that this device is at
  const uint32_t* there = nullptr;  // and the other
  uint64_t bound_nanos = 0;
};

}  // namespace tandem::peer
