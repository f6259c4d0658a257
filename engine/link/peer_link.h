// Collectives by kernels that talk to one another over slots which all of them reach: in the
// reader's memory (pushed: only stores cross the link), in the writer's (pulled: only loads do), or
// in the host's, where no GPU reaches another. Small messages cross as words that carry their
// generation, larger ones as blocks with a flag; see peer_layout.h, and cuda/p2p_kernels.cu for why
// nothing is lost.
//
// A kernel that waits longer than the bound gives up, and with it every later one of its rank,
// until TakeFailure() has told of it and cleared the slots.
//
// All memory is taken at construction, as much as engine/plan/link_memory.h says. One thread.
//
//   PeerLink link({.path = PathKind::kP2p, .words = PeerPlace::kPush, .blocks = PeerPlace::kPush},
//                 devices, host, kernels);
//   link.AllReduce(WireType::kF32, ends, 4096, ledger);
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/base/units.h"
#include "engine/device/device.h"
#include "engine/link/direct_collectives.h"
#include "engine/link/peer_kernels.h"
#include "engine/link/queued_transport.h"
#include "engine/link/transport.h"
#include "engine/plan/fused_ops.h"
#include "engine/rig/rig.h"

namespace tandem {

enum class PeerPlace : uint8_t { kPush, kPull, kHost };
const char* ToString(PeerPlace place);  // "push", "pull", "host"

struct PeerLinkOptions {
  PathKind path = PathKind::kP2p;  // what is booked
  PeerPlace words = PeerPlace::kPush;
  PeerPlace blocks = PeerPlace::kPush;
  // Messages of up to so many values cross as words, of up to so many as blocks; longer ones are
  // left to copies.
  uint64_t most_words = kMostPeerWords;
  uint64_t most = UINT64_MAX;
  // How long a kernel waits for another device.
  Nanos bound{int64_t{20'000'000'000}};
  // Where given, messages take no less than they would on its link: for one GPU that stands for
  // several. Outlives the link.
  const Rig* shape = nullptr;
};

class PeerLink final : public DirectCollectives {
 public:
  // `devices` by DeviceId, 2 to peer::kMaxRanks; `host` allocates memory that they reach. All
  // outlive the link.
  PeerLink(const PeerLinkOptions& options, std::span<const std::unique_ptr<Device>> devices,
           Device& host, PeerKernels& kernels);

  // Over all devices; a part of them would count generations apart from the others.
  bool TakesAllReduce(WireType wire, uint64_t n, size_t ranks) const override;
  void AllReduce(WireType wire, std::span<const DirectEnd> ranks, uint64_t n,
                 TrafficLedger& ledger) override;
  // What crosses as words and has rows that fit a block's channels.
  bool TakesRows(WireType wire, const DirectRowsShape& shape, size_t ranks) const override;
  void AllReduceRows(WireType wire, std::span<const DirectEnd> ranks,
                     std::span<const DirectRows> outs, const DirectRowsShape& shape,
                     TrafficLedger& ledger) override;
  bool TakesSend(WireType wire, uint64_t n) const override;
  void Send(WireType wire, const DirectEnd& src, const DirectEnd& dst, uint64_t n,
            TrafficLedger& ledger) override;

  // Whether a kernel gave up since the last call, and for which op. All queues are empty; if so,
  // all is as at construction.
  std::optional<TransportFailure> TakeFailure();

  // Every channel of every rank counts from here: for tests of what happens as counts come round.
  void StartGenerationsAt(uint32_t generation);

  const PeerLinkOptions& options() const { return options_; }

 private:
  // One direction of a pair over one of the ways.
  struct Lane {
    Buffer slots;
    Buffer acks;         // of sends
    Buffer sent, taken;  // generations of sends, at the writer and at the reader
  };
  struct Pair {
    Lane reduce[peer::kWays];
    Lane send[peer::kWays];
  };
  struct Rank {
    Buffer abort;
    Buffer generations[peer::kWays];  // of all-reduces
  };

  Pair& PairOf(size_t writer, size_t reader) { return pairs_[writer * devices_.size() + reader]; }
  void MakeLanes(size_t writer, size_t reader);
  Device& OwnerOf(peer::Way way, size_t writer, size_t reader, bool of_acks);
  peer::Bound BoundOf(size_t device, uint32_t op) const;
  peer::Way WayOf(uint64_t n) const;
  // What ranks[r]'s kernel is told of a sum, but where its own values lie. Books what it gets.
  peer::ReduceArgs ReduceArgsOf(WireType wire, peer::Way way, std::span<const DirectEnd> ranks,
                                uint32_t r, uint64_t n, TrafficLedger& ledger);
  uint64_t ShapedNanos(WireType wire, size_t ranks, uint64_t n) const;
  void Book(DeviceId src, DeviceId dst, uint64_t bytes, TrafficLedger& ledger) const;
  // Fills every buffer but the words of failure with `generation`, which no message has after it.
  void Reset(uint32_t generation);
  static void Fill(Device& device, const Buffer& buffer, uint32_t word);

  const PeerLinkOptions options_;
  const std::span<const std::unique_ptr<Device>> devices_;
  Device& host_;
  PeerKernels& kernels_;
  QueueChain chain_;
  std::vector<Rank> ranks_;
  std::vector<Pair> pairs_;  // by writer and reader
  Buffer failures_;          // (devices) of 8 bytes, in the host's memory
};

}  // namespace tandem
