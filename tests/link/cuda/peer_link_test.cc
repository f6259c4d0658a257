// The kernels of peer links, both ends side by side (on emulated GPUs, and on real ones where there
// are some): the bits and the bytes of
// collectives.cc on the CPU, for every wire type, way and place, at any size and in any order; what
// happens when a count comes round, and when nobody comes.
#include "engine/link/peer_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>

#include "engine/link/collectives.h"
#include "engine/link/p2p_transport.h"
#include "engine/link/queued_transport.h"
#include "engine/link/self_test.h"
#include "engine/plan/link_memory.h"
#include "tests/link/link_fixture.h"
#include "tests/support/peer_machine.h"

namespace tandem {
namespace {

using testing::LinkDevices;
using testing::MakePeerKernels;
using testing::PeerMachine;
using testing::RandomFloats;
using testing::SameBits;

constexpr Nanos kLong{int64_t{60'000'000'000}};
constexpr Nanos kShort{int64_t{100'000'000}};

// Values that tell orders of addition apart, and the odd ones now and then.
std::vector<float> Values(uint64_t n, uint32_t seed) {
  std::vector<float> values = RandomFloats(n, seed);
  for (uint64_t i = seed % 7; i < n; i += 97) values[i] = i % 2 == 0 ? -0.0f : 1e-42f;
  return values;
}

// A peer link over n devices, and the CPU's collectives beside it.
class Linked {
 public:
  Linked(size_t n, PeerLinkOptions options)
      : machine(n),
        cpu(static_cast<uint32_t>(n)),
        link(options, machine.devices, *machine.host, kernels) {
    cpu_transport = MakeTransport(
        options.path == PathKind::kHostStaged ? PathKind::kHostStaged : PathKind::kLocal,
        options.path, cpu.host.get());
  }

  // One message: what each rank gives, where it gets it, and what it should get.
  struct Message {
    std::vector<Buffer> in, out;
    std::vector<float> want;
  };

  Message AskReduce(WireType wire, uint64_t n, uint32_t seed) {
    Message message;
    std::vector<std::vector<float>> parts, outs;
    std::vector<DirectEnd> ends;
    for (size_t r = 0; r < machine.devices.size(); ++r) {
      parts.push_back(Values(n, seed * 31 + static_cast<uint32_t>(r)));
      outs.emplace_back(n, 0.0f);
      Put(message, r, parts.back());
      ends.push_back(End(message, r));
    }
    std::vector<CollectiveRank> ranks;
    std::vector<std::vector<std::byte>> scratch(parts.size(), std::vector<std::byte>(1 << 16));
    for (size_t r = 0; r < parts.size(); ++r) {
      ranks.push_back(CollectiveRank{.device = DeviceId{static_cast<int32_t>(r)},
                                     .in = parts[r].data(),
                                     .out = outs[r].data(),
                                     .scratch = scratch[r].data()});
    }
    AllReduce(Context(wire), Algorithm::kOneShot, ranks, n);
    message.want = outs[0];
    EXPECT_TRUE(link.TakesAllReduce(wire, n, ends.size()));
    link.AllReduce(wire, ends, n, ledger);
    return message;
  }

  Message AskSend(WireType wire, size_t from, size_t to, uint64_t n, uint32_t seed) {
    Message message;
    const std::vector<float> values = Values(n, seed);
    for (size_t r = 0; r < machine.devices.size(); ++r) Put(message, r, values);
    message.want.assign(n, 0.0f);
    std::vector<std::byte> scratch(1 << 16), other(1 << 16);
    SendActivations(Context(wire),
                    CollectiveRank{.device = DeviceId{static_cast<int32_t>(from)},
                                   .in = values.data(),
                                   .scratch = scratch.data()},
                    CollectiveRank{.device = DeviceId{static_cast<int32_t>(to)},
                                   .out = message.want.data(),
                                   .scratch = other.data()},
                    n);
    link.Send(wire, End(message, from), End(message, to), n, ledger);
    return message;
  }

  // What a rank got, with the guard behind it checked.
  std::vector<float> Got(const Message& message, size_t rank) {
    std::vector<float> got(message.want.size() + 1);
    machine.devices[rank]->Download(reinterpret_cast<std::byte*>(got.data()),
                                    message.out[rank].data(), 4 * got.size());
    EXPECT_EQ(got.back(), kGuard) << "written beyond the end";
    got.pop_back();
    return got;
  }
  void ExpectSums(const Message& message) {
    for (size_t r = 0; r < machine.devices.size(); ++r) {
      ASSERT_TRUE(SameBits(Got(message, r), message.want)) << "rank " << r;
    }
  }

  PeerMachine machine;
  LinkDevices cpu;
  std::unique_ptr<Transport> cpu_transport;
  testing::SomePeerKernels kernels;
  PeerLink link;
  TrafficLedger ledger = cpu.ledger;

 private:
  static constexpr float kGuard = 12345.0f;

  CollectiveContext Context(WireType wire) {
    return CollectiveContext{.transport = cpu_transport.get(),
                             .ledger = &cpu.ledger,
                             .wire = wire,
                             .scratch_bytes = 1 << 16};
  }
  void Put(Message& message, size_t rank, const std::vector<float>& values) {
    const uint64_t bytes = 4 * values.size();
    message.in.push_back(machine.Room(rank, bytes));
    message.out.push_back(machine.Room(rank, bytes + 4));
    Device& device = *machine.devices[rank];
    device.Upload(message.in.back().data(), reinterpret_cast<const std::byte*>(values.data()),
                  bytes);
    const std::vector<float> junk(values.size() + 1, kGuard);
    device.Upload(message.out.back().data(), reinterpret_cast<const std::byte*>(junk.data()),
                  bytes + 4);
  }
  DirectEnd End(const Message& message, size_t rank) {
    return DirectEnd{.device = machine.devices[rank]->id(),
                     .in = message.in[rank].as<float>(),
                     .out = message.out[rank].as<float>(),
                     .queue = machine.queue(rank)};
  }
};

class PeerLinkTest : public ::testing::TestWithParam<std::tuple<PeerPlace, bool>> {
 protected:
  void SetUp() override {
    if (const std::string why = testing::NoPeerMachine(); !why.empty()) GTEST_SKIP() << why;
  }
  static PeerLinkOptions Options() {
    const auto [place, words] = GetParam();
    return PeerLinkOptions{
        .path = place == PeerPlace::kHost ? PathKind::kHostStaged : PathKind::kP2p,
        .words = place,
        .blocks = place,
        .most_words = words ? uint64_t{1} << 40 : 0,
        .bound = kLong};
  }
  // Less than a quad, odd ends, one chunk, several of one channel, more than all channels hold.
  static std::vector<uint64_t> Sizes() {
    if (std::get<1>(GetParam())) return {1, 3, 31, 33, 576, 1024, 1025, 5000, 40003};
    return {1, 33, 4096, 8192, 8193, 30001, 8192 * 33 + 5};
  }
};

constexpr WireType kWires[] = {WireType::kF32, WireType::kBf16, WireType::kQ8};

TEST_P(PeerLinkTest, SumsHaveTheBitsAndBytesOfTheCpu) {
  Linked linked(2, Options());
  std::vector<Linked::Message> messages;
  uint32_t seed = 0;
  for (WireType wire : kWires) {
    for (uint64_t n : Sizes()) messages.push_back(linked.AskReduce(wire, n, ++seed));
  }
  linked.machine.FinishAll();
  ASSERT_FALSE(linked.link.TakeFailure());
  for (const auto& message : messages) linked.ExpectSums(message);
  ASSERT_EQ(linked.ledger.rows().size(), linked.cpu.ledger.rows().size());
  for (size_t i = 0; i < linked.ledger.rows().size(); ++i) {
    const HopRow &got = linked.ledger.rows()[i], &want = linked.cpu.ledger.rows()[i];
    EXPECT_EQ(std::tie(got.src, got.dst, got.path, got.bytes),
              std::tie(want.src, want.dst, want.path, want.bytes));
  }
}

TEST_P(PeerLinkTest, ThreeRanksAddInTheirOrder) {
  Linked linked(3, Options());
  std::vector<Linked::Message> messages;
  for (WireType wire : kWires) messages.push_back(linked.AskReduce(wire, 5001, 7));
  linked.machine.FinishAll();
  for (const auto& message : messages) linked.ExpectSums(message);
  EXPECT_FALSE(linked.link.TakesAllReduce(WireType::kF32, 8, 2)) << "a part of the devices";
}

TEST_P(PeerLinkTest, SendsHaveTheBitsOfTheCpu) {
  Linked linked(2, Options());
  std::vector<Linked::Message> messages;
  uint32_t seed = 0;
  for (WireType wire : kWires) {
    for (uint64_t n : Sizes()) {
      // Several in one direction, so that the sender is ahead, and one back.
      const size_t from = ++seed % 4 == 0 ? 1 : 0;
      messages.push_back(linked.AskSend(wire, from, 1 - from, n, seed));
    }
  }
  linked.machine.FinishAll();
  ASSERT_FALSE(linked.link.TakeFailure());
  for (size_t i = 0; i < messages.size(); ++i) {
    const size_t to = (i + 1) % 4 == 0 ? 0 : 1;
    ASSERT_TRUE(SameBits(linked.Got(messages[i], to), messages[i].want)) << i;
  }
}

// Of all sizes one after the other, all-reduces and sends mixed, nobody waiting in between.
TEST_P(PeerLinkTest, ManyRoundsBackToBack) {
  Linked linked(2, Options());
  std::vector<Linked::Message> sums, sent;
  const bool words = std::get<1>(GetParam());
  for (uint32_t round = 0; round < 120; ++round) {
    const uint64_t n = words ? 1 + round * 37 % 3000 : 1 + round * 1237 % 20000;
    sums.push_back(linked.AskReduce(kWires[round % 3], n, round));
    if (round % 5 == 0) sent.push_back(linked.AskSend(kWires[round % 3], 0, 1, n, round));
  }
  linked.machine.FinishAll();
  ASSERT_FALSE(linked.link.TakeFailure());
  for (const auto& message : sums) linked.ExpectSums(message);
  for (const auto& message : sent) {
    ASSERT_TRUE(SameBits(linked.Got(message, 1), message.want));
  }
}

TEST_P(PeerLinkTest, CountsComeRound) {
  Linked linked(2, Options());
  for (uint32_t start : {0xfffffffbu, 0x0000fffcu}) {
    linked.link.StartGenerationsAt(start);
    std::vector<Linked::Message> sums, sent;
    for (uint32_t round = 0; round < 9; ++round) {
      sums.push_back(linked.AskReduce(WireType::kF32, round % 3 == 2 ? 1500 : 10, round));
      sent.push_back(linked.AskSend(WireType::kQ8, 1, 0, round % 3 == 2 ? 10 : 1500, round));
    }
    linked.machine.FinishAll();
    ASSERT_FALSE(linked.link.TakeFailure());
    for (const auto& message : sums) linked.ExpectSums(message);
    for (const auto& message : sent) {
      ASSERT_TRUE(SameBits(linked.Got(message, 0), message.want));
    }
  }
}

TEST_P(PeerLinkTest, GivesUpOnOneThatNeverComesAndNamesTheOp) {
  PeerLinkOptions options = Options();
  options.bound = kShort;
  Linked linked(2, options);
  linked.ledger.BeginOp(17, OpKind::kAllReduce, BlockId{1}, WireType::kF32);
  linked.kernels.drops = [](size_t device) { return device == 1; };
  const auto begin = std::chrono::steady_clock::now();
  // All of what follows returns at once: in time for one wait, not for a hundred.
  for (uint32_t i = 0; i < 50; ++i) {
    linked.AskReduce(WireType::kF32, 40, i);
    linked.AskSend(WireType::kF32, 1, 0, 40, i);
  }
  linked.machine.FinishAll();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(4));
  const auto failure = linked.link.TakeFailure();
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->op, 17u);
  EXPECT_THAT(failure->what, ::testing::HasSubstr("device 0 waited 0.1 s for device 1"));
  EXPECT_FALSE(linked.link.TakeFailure());
  // Cleared: all is as before.
  linked.kernels.drops = [](size_t) { return false; };
  const auto message = linked.AskReduce(WireType::kBf16, 2000, 5);
  linked.machine.FinishAll();
  linked.ExpectSums(message);
}

TEST_P(PeerLinkTest, ASenderWaitsForItsSlotsAndGivesUp) {
  PeerLinkOptions options = Options();
  options.bound = kShort;
  Linked linked(2, options);
  linked.kernels.drops = [](size_t device) { return device == 1; };
  for (uint32_t i = 0; i < 2; ++i) linked.AskSend(WireType::kF32, 0, 1, 40, i);
  linked.machine.FinishAll();
  EXPECT_FALSE(linked.link.TakeFailure()) << "two slots hold two messages";
  linked.AskSend(WireType::kF32, 0, 1, 40, 3);
  linked.machine.FinishAll();
  ASSERT_TRUE(linked.link.TakeFailure());
}

INSTANTIATE_TEST_SUITE_P(Places, PeerLinkTest,
                         ::testing::Combine(::testing::Values(PeerPlace::kPush, PeerPlace::kPull,
                                                              PeerPlace::kHost),
                                            ::testing::Bool()),
                         [](const auto& info) {
                           return std::string(ToString(std::get<0>(info.param))) +
                                  (std::get<1>(info.param) ? "_words" : "_blocks");
                         });

// A link of 20 ms: what comes at once is held back.
TEST(ShapedPeerLinkTest, TakesAsLongAsItsLink) {
  if (const std::string why = testing::NoPeerMachine(); !why.empty()) GTEST_SKIP() << why;
  Rig rig;
  rig.devices.resize(2);
  rig.link.kind = LinkKind::kPcieP2p;
  rig.link.send.points = {{Bytes{0}, Nanos{20'000'000}}, {Bytes{1 << 20}, Nanos{30'000'000}}};
  for (uint64_t most_words : {uint64_t{0}, uint64_t{1} << 20}) {
    Linked linked(2, PeerLinkOptions{.most_words = most_words, .bound = kLong, .shape = &rig});
    auto begin = std::chrono::steady_clock::now();
    const auto sum = linked.AskReduce(WireType::kF32, 20000, 1);
    linked.machine.FinishAll();
    EXPECT_GT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(20));
    linked.ExpectSums(sum);
    begin = std::chrono::steady_clock::now();
    const auto sent = linked.AskSend(WireType::kBf16, 1, 0, 20000, 1);
    linked.machine.FinishAll();
    EXPECT_GT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(20));
    EXPECT_TRUE(SameBits(linked.Got(sent, 0), sent.want));
    EXPECT_FALSE(linked.link.TakeFailure());
  }
}

// A plan's table counts what transports take before they are made.
TEST(LinkMemoryTest, TransportsTakeWhatPlansCount) {
  if (const std::string why = testing::NoPeerMachine(); !why.empty()) GTEST_SKIP() << why;
  for (uint32_t n : {2u, 3u}) {
    PeerMachine machine(n);
    const auto expect = [&](const LinkMemory& memory, const std::string& what) {
      for (const auto& device : machine.devices) {
        EXPECT_EQ(device->ledger().used(), memory.card) << what << " of " << n;
      }
      EXPECT_EQ(machine.host->ledger().used(), memory.host) << what << " of " << n;
    };
    const auto kernels = MakePeerKernels();
    for (PeerPlace words : {PeerPlace::kPush, PeerPlace::kPull}) {
      for (PeerPlace blocks : {PeerPlace::kPush, PeerPlace::kPull}) {
        const PeerLink link(PeerLinkOptions{.words = words, .blocks = blocks}, machine.devices,
                            *machine.host, *kernels);
        expect(LinkMemoryOf(PathKind::kP2p, n), ToString(words));
      }
    }
    {
      const auto staged =
          MakeQueuedTransport(PathKind::kHostStaged, PathKind::kHostStaged, machine.devices,
                              *machine.host, SmallByKernel{.kernels = MakePeerKernels()});
      for (const auto& src : machine.devices) {
        for (const auto& dst : machine.devices) {
          if (src != dst) SelfTestPath(*staged, *src, *dst);
        }
      }
      expect(LinkMemoryOf(PathKind::kHostStaged, n), "host_staged");
    }
    expect({}, "nothing");
  }
}

// It tries its ways before anything else is there.
TEST(LinkMemoryTest, ProbingTakesNoMoreThanPlansLeaveForIt) {
  if (const std::string why = testing::NoPeerMachine(); !why.empty()) GTEST_SKIP() << why;
  PeerMachine machine(2);
  const auto p2p = MakeP2pTransport({}, machine.devices, *machine.host, MakePeerKernels());
  const LinkMemory memory = LinkMemoryOf(PathKind::kP2p, 2);
  for (const auto& device : machine.devices) {
    EXPECT_EQ(device->ledger().used(), memory.card);
    EXPECT_EQ(device->ledger().peak(), memory.card + Bytes{kPeerProbe});
  }
}

// In the generations that ask for it a small message renews every word of its slot, so that none
// keeps a count from long ago.
TEST(PeerSlotsTest, SweepsLeaveNoOldWord) {
  if (const std::string why = testing::NoPeerMachine(); !why.empty()) GTEST_SKIP() << why;
  PeerMachine machine(2);
  const auto kernels = MakePeerKernels();
  const Buffer slots = machine.Room(1, peer::LaneBytes(peer::Way::kWords));
  const Buffer acks = machine.Room(0, peer::kChannels * peer::kAckStride);
  const Buffer count = machine.Room(0, 4 * peer::kChannels), abort = machine.Room(0, 64);
  const Buffer in = machine.Room(0, 64);
  const Buffer failure = machine.host->Allocate(MemoryUse::kWorkspace, Bytes{8}, "test");
  const auto put = [&](const Buffer& to, uint32_t word) {
    machine.devices[0]->Upload(to.data(), reinterpret_cast<const std::byte*>(&word), sizeof word);
  };
  put(count, 0x0003fffe);
  put(acks, 0x0003ffff);
  peer::SendArgs args{.in = in.as<float>(),
                      .n = 4,
                      .slots = slots.data(),
                      .acks = acks.data(),
                      .generations = count.as<uint32_t>(),
                      .bound = {abort.as<uint32_t>(), failure.as<uint64_t>(), 1'000'000'000, 0}};
  const auto words_of = [&](uint32_t slot) {
    std::vector<uint64_t> words(2 * peer::kThreads * peer::kLinesPerQuad);
    machine.devices[1]->Download(reinterpret_cast<std::byte*>(words.data()),
                                 slots.data() + slot * peer::kWordsSlotBytes + peer::kDataAt,
                                 8 * words.size());
    return words;
  };
  for (uint32_t generation : {0x3ffffu, 0x40000u, 0x40001u}) {
    kernels->Send(0, *machine.queue(0), WireType::kF32, peer::Way::kWords, 1, args);
    machine.FinishAll();
    size_t renewed = 0;
    for (uint64_t word : words_of(generation % 2)) renewed += word >> 32 == generation ? 1 : 0;
    const size_t all = words_of(0).size();
    EXPECT_EQ(renewed, (generation & peer::kSweepMask) < 2 ? all : 4u) << generation;
  }
}

}  // namespace
}  // namespace tandem
