#include "engine/link/peer_link.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "engine/base/check.h"
#include "engine/link/wire.h"
#include "engine/plan/link_memory.h"
#include "engine/plan/plan.h"

namespace tandem {
namespace {

constexpr std::array<peer::Way, peer::kWays> kAllWays{peer::Way::kWords, peer::Way::kBlocks};
constexpr uint64_t kCounts = peer::kChannels * sizeof(uint32_t);

// Plans count what a link takes before it is made.
static_assert(peer::LaneBytes(peer::Way::kWords) == kPeerWordsSlots);
static_assert(peer::LaneBytes(peer::Way::kBlocks) == kPeerBlocksSlots);
static_assert(peer::kChannels * peer::kAckStride == kPeerAcks);
static_assert(kCounts == kPeerCounts);

size_t IndexOf(DeviceId id) { return static_cast<size_t>(id.value); }

uint32_t ChannelsFor(peer::Way way, uint64_t n) {
  const uint64_t chunks = (n + peer::ChunkElems(way) - 1) / peer::ChunkElems(way);
  return static_cast<uint32_t>(std::min<uint64_t>(chunks, peer::kChannels));
}

}  // namespace

const char* ToString(PeerPlace place) {
  switch (place) {
    case PeerPlace::kPush:
      return "push";
    case PeerPlace::kPull:
      return "pull";
    case PeerPlace::kHost:
      return "host";
  }
  return "push";
}

PeerLink::PeerLink(const PeerLinkOptions& options, std::span<const std::unique_ptr<Device>> devices,
                   Device& host, PeerKernels& kernels)
    : options_(options), devices_(devices), host_(host), kernels_(kernels) {
  const size_t n = devices.size();
  Check(n >= 2 && n <= peer::kMaxRanks, "peer link: number of devices");
  ranks_.resize(n);
  pairs_.resize(n * n);
  for (size_t d = 0; d < n; ++d) {
    ranks_[d].abort =
        devices[d]->Allocate(MemoryUse::kWorkspace, Bytes{kPeerAbort}, "link abort word");
    for (Buffer& generations : ranks_[d].generations) {
      generations = devices[d]->Allocate(MemoryUse::kWorkspace, Bytes{kCounts}, "link counts");
    }
    for (size_t reader = 0; reader < n; ++reader) {
      if (reader != d) MakeLanes(d, reader);
    }
  }
  failures_ = host.Allocate(MemoryUse::kWorkspace, Bytes{kPeerFailure * n}, "link failures");
}

Device& PeerLink::OwnerOf(peer::Way way, size_t writer, size_t reader, bool of_acks) {
  const PeerPlace place = way == peer::Way::kWords ? options_.words : options_.blocks;
  if (place == PeerPlace::kHost) return host_;
  // Acknowledgements go the other way: pushed they lie at who waits for them, pulled at who makes
  // them.
  const bool at_reader = (place == PeerPlace::kPush) != of_acks;
  return *devices_[at_reader ? reader : writer];
}

void PeerLink::MakeLanes(size_t writer, size_t reader) {
  Pair& pair = PairOf(writer, reader);
  for (peer::Way way : kAllWays) {
    const auto w = static_cast<size_t>(way);
    const Bytes slots{peer::LaneBytes(way)};
    Device& owner = OwnerOf(way, writer, reader, false);
    pair.reduce[w].slots = owner.Allocate(MemoryUse::kWorkspace, slots, "link slots");
    Lane& send = pair.send[w];
    send.slots = owner.Allocate(MemoryUse::kWorkspace, slots, "link slots");
    send.acks = OwnerOf(way, writer, reader, true)
                    .Allocate(MemoryUse::kWorkspace, Bytes{peer::kChannels * peer::kAckStride},
                              "link acknowledgements");
    send.sent = devices_[writer]->Allocate(MemoryUse::kWorkspace, Bytes{kCounts}, "link counts");
    send.taken = devices_[reader]->Allocate(MemoryUse::kWorkspace, Bytes{kCounts}, "link counts");
  }
}

peer::Bound PeerLink::BoundOf(size_t device, uint32_t op) const {
  return peer::Bound{.abort = ranks_[device].abort.as<uint32_t>(),
                     .failure = failures_.as<uint64_t>() + device,
                     .nanos = static_cast<uint64_t>(options_.bound.value),
                     .op = op};
}

peer::Way PeerLink::WayOf(uint64_t n) const {
  return n <= options_.most_words ? peer::Way::kWords : peer::Way::kBlocks;
}

bool PeerLink::TakesAllReduce(WireType, uint64_t n, size_t ranks) const {
  return ranks == devices_.size() && n > 0 && n <= options_.most;
}
bool PeerLink::TakesSend(WireType, uint64_t n) const { return n > 0 && n <= options_.most; }

void PeerLink::Book(DeviceId src, DeviceId dst, uint64_t bytes, TrafficLedger& ledger) const {
  if (options_.path != PathKind::kHostStaged) {
    ledger.Book(src, dst, options_.path, Bytes{bytes});
    return;
  }
  ledger.Book(src, kHost, options_.path, Bytes{bytes});
  ledger.Book(kHost, dst, options_.path, Bytes{bytes});
}

uint64_t PeerLink::ShapedNanos(WireType wire, size_t ranks, uint64_t n) const {
  if (options_.shape == nullptr) return 0;
  const Bytes bytes = WireBytes(wire, n);
  const Nanos time =
      ranks == 2 ? options_.shape->AllReduceTime(2, bytes, options_.path)
                 : options_.shape->ExchangeTime(static_cast<uint32_t>(ranks), bytes, options_.path);
  return static_cast<uint64_t>(time.value);
}

peer::ReduceArgs PeerLink::ReduceArgsOf(WireType wire, peer::Way way,
                                        std::span<const DirectEnd> ranks, uint32_t r, uint64_t n,
                                        TrafficLedger& ledger) {
  const auto w = static_cast<size_t>(way);
  const size_t self = IndexOf(ranks[r].device);
  Check(ranks[r].queue != nullptr && ranks[r].in != nullptr,
        "peer link: a rank without queue or buffers");
  peer::ReduceArgs args{.in = ranks[r].in, .n = n, .rank = r};
  args.ranks = static_cast<uint32_t>(ranks.size());
  args.shaped_nanos = ShapedNanos(wire, ranks.size(), n);
  args.generations = ranks_[self].generations[w].as<uint32_t>();
  args.bound = BoundOf(self, ledger.op());
  for (uint32_t other = 0; other < args.ranks; ++other) {
    if (other == r) continue;
    const size_t peer = IndexOf(ranks[other].device);
    args.to[other] = PairOf(self, peer).reduce[w].slots.data();
    args.from[other] = PairOf(peer, self).reduce[w].slots.data();
    Book(ranks[other].device, ranks[r].device, WireBytes(wire, n).value, ledger);
  }
  return args;
}

void PeerLink::AllReduce(WireType wire, std::span<const DirectEnd> ranks, uint64_t n,
                         TrafficLedger& ledger) {
  Check(TakesAllReduce(wire, n, ranks.size()), "peer link: an all-reduce that was not taken");
  const peer::Way way = WayOf(n);
  for (uint32_t r = 0; r < ranks.size(); ++r) {
    Check(ranks[r].out != nullptr, "peer link: a rank without queue or buffers");
    peer::ReduceArgs args = ReduceArgsOf(wire, way, ranks, r, n, ledger);
    args.out = ranks[r].out;
    kernels_.Reduce(IndexOf(ranks[r].device), *ranks[r].queue, wire, way, ChannelsFor(way, n),
                    args);
  }
}

bool PeerLink::TakesRows(WireType wire, const DirectRowsShape& shape, size_t ranks) const {
  const uint64_t n = shape.elems();
  // Blocks of the wire that span rows would have scales of two.
  const bool whole = wire != WireType::kQ8 || shape.rows == 1 || shape.width % kWireBlock == 0;
  return TakesAllReduce(wire, n, ranks) && WayOf(n) == peer::Way::kWords && whole &&
         peer::RowChannels(shape.width) <= peer::kChannels;
}

void PeerLink::AllReduceRows(WireType wire, std::span<const DirectEnd> ranks,
                             std::span<const DirectRows> outs, const DirectRowsShape& shape,
                             TrafficLedger& ledger) {
  Check(TakesRows(wire, shape, ranks.size()), "peer link: an all-reduce that was not taken");
  Check(outs.size() == ranks.size(), "peer link: what each rank makes of the sum");
  const auto row_channels = static_cast<uint32_t>(peer::RowChannels(shape.width));
  const auto blocks =
      static_cast<uint32_t>(std::min<uint64_t>(shape.rows, peer::kChannels / row_channels));
  for (uint32_t r = 0; r < ranks.size(); ++r) {
    const DirectRows& out = outs[r];
    Check(out.residual != nullptr && out.sum != nullptr &&
              (out.weights == nullptr) == (out.norm == nullptr),
          "peer link: a rank without the buffers of its rows");
    const peer::RowsArgs args{
        .reduce = ReduceArgsOf(wire, peer::Way::kWords, ranks, r, shape.elems(), ledger),
        .width = static_cast<uint32_t>(shape.width),
        .row_channels = row_channels,
        .residual = out.residual,
        .sum = out.sum,
        .weights = out.weights,
        .eps = shape.eps,
        .norm = out.norm};
    kernels_.ReduceRows(IndexOf(ranks[r].device), *ranks[r].queue, wire, blocks, args);
  }
}

void PeerLink::Send(WireType wire, const DirectEnd& src, const DirectEnd& dst, uint64_t n,
                    TrafficLedger& ledger) {
  Check(TakesSend(wire, n), "peer link: a send that was not taken");
  Check(src.queue != nullptr && dst.queue != nullptr && src.in != nullptr && dst.out != nullptr,
        "peer link: an end without queue or buffer");
  const peer::Way way = WayOf(n);
  const size_t from = IndexOf(src.device);
  const size_t to = IndexOf(dst.device);
  const Lane& lane = PairOf(from, to).send[static_cast<size_t>(way)];
  const uint64_t bytes = WireBytes(wire, n).value;
  peer::SendArgs args{.n = n, .slots = lane.slots.data(), .acks = lane.acks.data()};
  if (options_.shape != nullptr) {
    args.shaped_nanos =
        static_cast<uint64_t>(options_.shape->HopTime(src.device, dst.device, Bytes{bytes}).value);
  }
  args.in = src.in;
  args.peer = static_cast<uint32_t>(to);
  args.generations = lane.sent.as<uint32_t>();
  args.bound = BoundOf(from, ledger.op());
  // The receiver begins when the sender gets there, and does not spin through all that the sender
  // has to do before.
  chain_.Follow(src.queue, dst.queue);
  kernels_.Send(from, *src.queue, wire, way, ChannelsFor(way, n), args);
  args.in = nullptr;
  args.out = dst.out;
  args.peer = static_cast<uint32_t>(from);
  args.generations = lane.taken.as<uint32_t>();
  args.bound = BoundOf(to, ledger.op());
  kernels_.Receive(to, *dst.queue, wire, way, ChannelsFor(way, n), args);
  Book(src.device, dst.device, bytes, ledger);
}

void PeerLink::Fill(Device& device, const Buffer& buffer, uint32_t word) {
  const std::vector<uint32_t> words(buffer.size() / sizeof(uint32_t), word);
  device.Upload(buffer.data(), reinterpret_cast<const std::byte*>(words.data()), buffer.size());
}

void PeerLink::Reset(uint32_t generation) {
  const size_t n = devices_.size();
  for (size_t d = 0; d < n; ++d) {
    Fill(*devices_[d], ranks_[d].abort, 0);
    for (const Buffer& counts : ranks_[d].generations) Fill(*devices_[d], counts, generation);
    for (size_t reader = 0; reader < n; ++reader) {
      if (reader == d) continue;
      Pair& pair = PairOf(d, reader);
      for (peer::Way way : kAllWays) {
        const auto w = static_cast<size_t>(way);
        Device& owner = OwnerOf(way, d, reader, false);
        Fill(owner, pair.reduce[w].slots, generation);
        Lane& send = pair.send[w];
        Fill(owner, send.slots, generation);
        Fill(OwnerOf(way, d, reader, true), send.acks, generation);
        Fill(*devices_[d], send.sent, generation);
        Fill(*devices_[reader], send.taken, generation);
      }
    }
  }
  Fill(host_, failures_, 0);
}

void PeerLink::StartGenerationsAt(uint32_t generation) { Reset(generation); }

std::optional<TransportFailure> PeerLink::TakeFailure() {
  std::optional<TransportFailure> failure;
  for (size_t d = 0; d < devices_.size(); ++d) {
    uint64_t word = 0;
    std::memcpy(&word, failures_.data() + 8 * d, sizeof word);
    if (word == 0 || failure) continue;
    failure = TransportFailure{
        .op = peer::FailedOp(word),
        .what =
            fmt::format("link: path {}: device {} waited {:.3g} s for device {}, which never "
                        "came; another path may: --path",
                        tandem::ToString(options_.path), d,
                        static_cast<double>(options_.bound.value) * 1e-9, peer::FailedPeer(word))};
  }
  if (failure) Reset(0);
  return failure;
}

}  // namespace tandem
