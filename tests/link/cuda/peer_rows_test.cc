// All-reduces of rows that take the residual and the norm along (on emulated GPUs, and on real ones
// where there are some): the bits and the bytes of the all-reduce and of the kernel for AddNorm
// after it, for every wire type and place, whatever else the channels carried before; what is
// refused, and what happens when nobody comes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "engine/link/peer_link.h"
#include "engine/plan/fused_ops.h"
#include "tests/link/link_fixture.h"
#include "tests/support/peer_machine.h"

namespace tandem {
namespace {

using testing::PeerMachine;
using testing::RandomFloats;
using testing::SameBits;

constexpr Nanos kLong{int64_t{60'000'000'000}};
// Above what devices that are there keep each other waiting on a busy processor.
constexpr Nanos kShort{int64_t{500'000'000}};
constexpr float kEps = 1e-5f;
constexpr float kGuard = 12345.0f;
constexpr WireType kWires[] = {WireType::kF32, WireType::kBf16, WireType::kQ8};

// How an all-reduce of rows is asked for.
struct Rows {
  uint64_t rows = 1;
  uint64_t width = 0;
  bool norm = true;
  bool apart = false;     // as an all-reduce, then a norm
  uint64_t shift = 0;     // of every buffer, in values, so that none is aligned
  bool in_place = false;  // the sum over what is given, the norm over the residual
  uint64_t elems() const { return rows * width; }
};

class Linked {
 public:
  Linked(size_t n, const PeerLinkOptions& options)
      : machine(n), link(options, machine.devices, *machine.host, kernels) {
    ledger.BeginStep(ProgramKind::kDecode);
    ledger.BeginOp(17, OpKind::kAllReduce, BlockId{1}, WireType::kF32);
  }

  // By rank, what one message gave.
  struct Message {
    Rows asked;
    std::vector<Buffer> in, residual, weights, reduced, sum, norm;
  };

  Message Ask(WireType wire, const Rows& rows, uint32_t seed) {
    Message m{.asked = rows,
              .in = {},
              .residual = {},
              .weights = {},
              .reduced = {},
              .sum = {},
              .norm = {}};
    std::vector<DirectEnd> ends;
    std::vector<DirectRows> outs;
    for (size_t r = 0; r < machine.devices.size(); ++r) {
      const auto own = static_cast<uint32_t>(r);
      m.in.push_back(Put(r, rows, RandomFloats(rows.elems(), seed * 31 + own)));
      // The same on every rank, as residuals are.
      m.residual.push_back(Put(r, rows, RandomFloats(rows.elems(), seed * 31 + 29)));
      m.weights.push_back(Put(r, rows, RandomFloats(rows.width, seed * 31 + 30)));
      for (auto* out : {&m.reduced, &m.sum, &m.norm}) {
        out->push_back(Put(r, rows, std::vector<float>(rows.elems(), kGuard)));
      }
      ends.push_back(DirectEnd{.device = machine.devices[r]->id(),
                               .in = At(m.in[r], rows),
                               .out = rows.apart ? At(m.reduced[r], rows) : nullptr,
                               .queue = machine.queue(r)});
      outs.push_back(DirectRows{
          .residual = At(m.residual[r], rows),
          .sum = At(rows.in_place ? m.in[r] : m.sum[r], rows),
          .weights = rows.norm ? At(m.weights[r], rows) : nullptr,
          .norm = rows.norm ? At(rows.in_place ? m.residual[r] : m.norm[r], rows) : nullptr});
    }
    if (!rows.apart) {
      const DirectRowsShape shape{rows.rows, rows.width, kEps};
      EXPECT_TRUE(link.TakesRows(wire, shape, ends.size())) << rows.rows << " x " << rows.width;
      link.AllReduceRows(wire, ends, outs, shape, ledger);
      return m;
    }
    link.AllReduce(wire, ends, rows.elems(), ledger);
    for (size_t r = 0; r < outs.size(); ++r) {
      testing::AskAddNorm(r, *machine.queue(r),
                          cuda::NormCall{.x = outs[r].residual,
                                         .y = ends[r].out,
                                         .w = At(m.weights[r], rows),
                                         .eps = kEps,
                                         .n = rows.rows,
                                         .width = static_cast<uint32_t>(rows.width),
                                         .sum = outs[r].sum,
                                         .norm = At(m.norm[r], rows)});
    }
    return m;
  }

  std::vector<float> Sum(const Message& m, size_t r) {
    return Got(m.asked.in_place ? m.in[r] : m.sum[r], r, m.asked);
  }
  std::vector<float> Norm(const Message& m, size_t r) {
    return Got(m.asked.in_place ? m.residual[r] : m.norm[r], r, m.asked);
  }

  void ExpectSame(const Message& got, const Message& want) {
    for (size_t r = 0; r < machine.devices.size(); ++r) {
      ASSERT_TRUE(SameBits(Sum(got, r), Sum(want, r))) << "sum of rank " << r;
      const std::vector<float> norm = Norm(got, r);
      if (got.asked.norm) {
        ASSERT_TRUE(SameBits(norm, Norm(want, r))) << "norm of rank " << r;
      } else {
        ASSERT_EQ(norm, std::vector<float>(norm.size(), kGuard)) << "no norm is wanted";
      }
    }
  }

  PeerMachine machine;
  testing::SomePeerKernels kernels;
  PeerLink link;
  TrafficLedger ledger;

 private:
  static float* At(const Buffer& buffer, const Rows& rows) {
    return buffer.as<float>() + rows.shift;
  }
  // With a guard behind.
  Buffer Put(size_t rank, const Rows& rows, std::vector<float> values) {
    values.push_back(kGuard);
    Buffer buffer = machine.Room(rank, 4 * (values.size() + rows.shift));
    machine.devices[rank]->Upload(reinterpret_cast<std::byte*>(At(buffer, rows)),
                                  reinterpret_cast<const std::byte*>(values.data()),
                                  4 * values.size());
    return buffer;
  }
  std::vector<float> Got(const Buffer& buffer, size_t rank, const Rows& rows) {
    std::vector<float> got(rows.elems() + 1);
    machine.devices[rank]->Download(reinterpret_cast<std::byte*>(got.data()),
                                    reinterpret_cast<std::byte*>(At(buffer, rows)), 4 * got.size());
    EXPECT_EQ(got.back(), kGuard) << "written beyond the end";
    got.pop_back();
    return got;
  }
};

class PeerRowsTest : public ::testing::TestWithParam<PeerPlace> {
 protected:
  void SetUp() override {
    if (const std::string why = testing::NoPeerMachine(); !why.empty()) GTEST_SKIP() << why;
  }
  static PeerLinkOptions Options(uint64_t most_words = uint64_t{1} << 20) {
    const PeerPlace place = GetParam();
    return PeerLinkOptions{
        .path = place == PeerPlace::kHost ? PathKind::kHostStaged : PathKind::kP2p,
        .words = place,
        .blocks = place,
        .most_words = most_words,
        .bound = kLong};
  }

  // Each of `rows` fused and apart, over the same channels.
  static void Compare(size_t ranks, const std::vector<Rows>& all) {
    Linked linked(ranks, Options());
    std::vector<std::pair<Linked::Message, Linked::Message>> messages;
    uint32_t seed = 0;
    for (WireType wire : kWires) {
      for (Rows rows : all) {
        if (wire == WireType::kQ8 && rows.rows > 1 && rows.width % 32 != 0) continue;
        ++seed;
        Linked::Message got = linked.Ask(wire, rows, seed);
        rows.apart = rows.norm = true;
        rows.in_place = false;
        messages.emplace_back(std::move(got), linked.Ask(wire, rows, seed));
      }
    }
    linked.machine.FinishAll();
    ASSERT_FALSE(linked.link.TakeFailure());
    for (const auto& [got, want] : messages) {
      SCOPED_TRACE(std::to_string(got.asked.rows) + " x " + std::to_string(got.asked.width));
      linked.ExpectSame(got, want);
    }
  }
};

// A warp's rows and a block's; one chunk, a short last one, all channels; fewer rows than blocks
// and more.
TEST_P(PeerRowsTest, BitsAreThoseOfTheAllReduceAndTheNormApart) {
  Compare(2, {{.rows = 1, .width = 1},
              {.rows = 1, .width = 33},
              {.rows = 3, .width = 64},
              {.rows = 35, .width = 96},
              {.rows = 2, .width = 511},
              {.rows = 1, .width = 512},
              {.rows = 2, .width = 516},
              {.rows = 19, .width = 576},
              {.rows = 5, .width = 1025},
              {.rows = 7, .width = 4096},
              {.rows = 2, .width = 16384}});
}

TEST_P(PeerRowsTest, WithoutNormUnalignedAndInPlace) {
  std::vector<Rows> all;
  for (uint64_t width : {40u, 1056u}) {
    all.push_back({.rows = 2, .width = width, .norm = false});
    all.push_back({.rows = 2, .width = width, .shift = 1});
    all.push_back({.rows = 18, .width = width, .in_place = true});
    all.push_back({.rows = 1, .width = width + 3, .norm = false, .shift = 3, .in_place = true});
  }
  all[3].in_place = all[7].in_place = false;
  Compare(2, all);
}

TEST_P(PeerRowsTest, ThreeAndFourRanksAddInTheirOrder) {
  for (size_t ranks : {3u, 4u}) {
    Compare(ranks, {{.rows = 2, .width = 96}, {.rows = 3, .width = 1056}});
  }
}

// Widths mixed, so that the channels of a block stand at different counts, with plain sums and
// sends between, and nobody waiting.
TEST_P(PeerRowsTest, ManyRoundsOfAllKinds) {
  Linked linked(2, Options());
  constexpr uint64_t kWidths[] = {96, 4096, 576, 2080};
  for (uint32_t start : {0u, 0xfffffff9u, 0x0000fff9u}) {
    if (start != 0) linked.link.StartGenerationsAt(start);
    std::vector<std::pair<Linked::Message, Linked::Message>> messages;
    for (uint32_t round = 0; round < 24; ++round) {
      Rows rows{.rows = 1 + round % 3, .width = kWidths[round % 4]};
      const WireType wire = kWires[round % 3];
      Linked::Message got = linked.Ask(wire, rows, round);
      rows.apart = true;
      messages.emplace_back(std::move(got), linked.Ask(wire, rows, round));
    }
    linked.machine.FinishAll();
    ASSERT_FALSE(linked.link.TakeFailure());
    for (const auto& [got, want] : messages) linked.ExpectSame(got, want);
  }
}

TEST_P(PeerRowsTest, BooksWhatTheAllReduceBooks) {
  Linked fused(2, Options()), apart(2, Options());
  for (WireType wire : kWires) {
    Rows rows{.rows = 2, .width = 96};
    const auto got = fused.Ask(wire, rows, 1);
    rows.apart = true;
    const auto want = apart.Ask(wire, rows, 1);
    fused.machine.FinishAll();
    apart.machine.FinishAll();
  }
  ASSERT_EQ(fused.ledger.rows().size(), apart.ledger.rows().size());
  for (size_t i = 0; i < fused.ledger.rows().size(); ++i) {
    const HopRow &got = fused.ledger.rows()[i], &want = apart.ledger.rows()[i];
    EXPECT_EQ(std::tie(got.src, got.dst, got.path, got.bytes),
              std::tie(want.src, want.dst, want.path, want.bytes));
  }
}

TEST_P(PeerRowsTest, GivesUpOnOneThatNeverComesAndNamesTheOp) {
  PeerLinkOptions options = Options();
  options.bound = kShort;
  Linked linked(2, options);
  linked.kernels.drops = [](size_t device) { return device == 1; };
  const auto begin = std::chrono::steady_clock::now();
  std::vector<Linked::Message> lost;
  for (uint32_t i = 0; i < 40; ++i) {
    lost.push_back(linked.Ask(WireType::kQ8, {.rows = 2, .width = i % 2 == 0 ? 64u : 1088u}, i));
  }
  linked.machine.FinishAll();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
  const auto failure = linked.link.TakeFailure();
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->op, 17u);
  EXPECT_THAT(failure->what, ::testing::HasSubstr("device 0 waited 0.5 s for device 1"));
  // Cleared: all is as before.
  linked.kernels.drops = [](size_t) { return false; };
  Rows rows{.rows = 2, .width = 1088};
  const auto got = linked.Ask(WireType::kBf16, rows, 5);
  rows.apart = true;
  const auto want = linked.Ask(WireType::kBf16, rows, 5);
  linked.machine.FinishAll();
  const auto late = linked.link.TakeFailure();
  EXPECT_FALSE(late) << late->what;
  linked.ExpectSame(got, want);
}

TEST_P(PeerRowsTest, TakesWhatCrossesAsWordsInWholeRows) {
  const Linked linked(2, Options(20000));
  const auto takes = [&](WireType wire, uint64_t rows, uint64_t width, size_t ranks = 2) {
    return linked.link.TakesRows(wire, {rows, width, kEps}, ranks);
  };
  EXPECT_TRUE(takes(WireType::kF32, 1, 16384));
  EXPECT_FALSE(takes(WireType::kF32, 1, 16385)) << "more chunks than channels";
  EXPECT_TRUE(takes(WireType::kF32, 4, 5000));
  EXPECT_FALSE(takes(WireType::kF32, 5, 4096)) << "crosses as blocks";
  EXPECT_FALSE(takes(WireType::kF32, 0, 64));
  EXPECT_FALSE(takes(WireType::kF32, 1, 64, 3)) << "not all devices";
  EXPECT_TRUE(takes(WireType::kBf16, 2, 33));
  EXPECT_TRUE(takes(WireType::kQ8, 1, 33));
  EXPECT_FALSE(takes(WireType::kQ8, 2, 33)) << "a scale of two rows";
}

// What is priced as one kernel is what a link of its path's size takes.
TEST_P(PeerRowsTest, TakesWhatPlansArePricedBy) {
  const bool host = GetParam() == PeerPlace::kHost;
  const PathKind path = host ? PathKind::kHostStaged : PathKind::kP2p;
  const Linked linked(2, Options(host ? kMostHostWords : PeerLinkOptions{}.most_words));
  for (WireType wire : kWires) {
    for (uint64_t rows : {0, 1, 2, 3, 4, 16, 17}) {
      for (uint64_t width : {33, 64, 1024, 1025, 4096, 4097, 16384, 16385}) {
        EXPECT_EQ(linked.link.TakesRows(wire, {rows, width, kEps}, 2),
                  TakesRowsAlong(path, wire, rows, width))
            << ToString(path) << " " << ToString(wire) << " " << rows << " x " << width;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Places, PeerRowsTest,
                         ::testing::Values(PeerPlace::kPush, PeerPlace::kPull, PeerPlace::kHost),
                         [](const auto& info) { return ToString(info.param); });

TEST(ShapedPeerRowsTest, TakeAsLongAsTheirLink) {
  if (const std::string why = testing::NoPeerMachine(); !why.empty()) GTEST_SKIP() << why;
  Rig rig;
  rig.devices.resize(2);
  rig.link.kind = LinkKind::kPcieP2p;
  rig.link.send.points = {{Bytes{0}, Nanos{20'000'000}}, {Bytes{1 << 20}, Nanos{20'000'000}}};
  Linked linked(2, PeerLinkOptions{.bound = kLong, .shape = &rig});
  // Warps of one block a row, and blocks of several channels in two turns.
  for (Rows rows : {Rows{.rows = 1, .width = 64}, Rows{.rows = 3, .width = 5120}}) {
    const auto begin = std::chrono::steady_clock::now();
    const auto got = linked.Ask(WireType::kF32, rows, 3);
    linked.machine.FinishAll();
    EXPECT_GT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(20));
    rows.apart = true;
    const auto want = linked.Ask(WireType::kF32, rows, 3);
    linked.machine.FinishAll();
    linked.ExpectSame(got, want);
    EXPECT_FALSE(linked.link.TakeFailure());
  }
}

// In the generations that ask for it, rows renew every word of all their channels' slots, and in
// others those that they fill.
TEST(PeerRowSlotsTest, SweepsLeaveNoOldWord) {
  if (const std::string why = testing::NoPeerMachine(); !why.empty()) GTEST_SKIP() << why;
  PeerMachine machine(2);
  const auto kernels = testing::MakePeerKernels();
  const Buffer failure = machine.host->Allocate(MemoryUse::kWorkspace, Bytes{16}, "test");
  constexpr uint32_t kWidth = 1028;  // a channel and a quad of the next
  std::vector<Buffer> slots, counts, aborts, values;
  for (size_t d = 0; d < 2; ++d) {
    slots.push_back(machine.Room(d, peer::LaneBytes(peer::Way::kWords)));
    counts.push_back(machine.Room(d, 4 * peer::kChannels));
    aborts.push_back(machine.Room(d, 64));
    values.push_back(machine.Room(d, 4 * kWidth));
    const uint32_t begin[2] = {0x0003fffe, 0x0003fffe};
    machine.devices[d]->Upload(counts[d].data(), reinterpret_cast<const std::byte*>(begin), 8);
  }
  for (uint32_t generation : {0x3ffffu, 0x40000u, 0x40001u}) {
    for (size_t d = 0; d < 2; ++d) {
      peer::RowsArgs args{.width = kWidth,
                          .row_channels = 2,
                          .residual = values[d].as<float>(),
                          .sum = values[d].as<float>()};
      args.reduce = {.in = values[d].as<float>(), .n = kWidth, .ranks = 2};
      args.reduce.rank = static_cast<uint32_t>(d);
      args.reduce.to[1 - d] = slots[1 - d].data();
      args.reduce.from[1 - d] = slots[d].data();
      args.reduce.generations = counts[d].as<uint32_t>();
      args.reduce.bound = {aborts[d].as<uint32_t>(), failure.as<uint64_t>() + d, 60'000'000'000, 0};
      kernels->ReduceRows(d, *machine.queue(d), WireType::kBf16, 1, args);
    }
    machine.FinishAll();
    for (uint32_t channel : {0u, 1u}) {
      std::vector<uint64_t> words(2 * peer::kThreads * peer::kLinesPerQuad);
      machine.devices[1]->Download(
          reinterpret_cast<std::byte*>(words.data()),
          slots[1].data() + (2 * channel + generation % 2) * peer::kWordsSlotBytes + peer::kDataAt,
          8 * words.size());
      size_t renewed = 0;
      for (uint64_t word : words) renewed += word >> 32 == generation ? 1 : 0;
      const size_t filled = channel == 0 ? 2 * peer::kThreads : 2;
      EXPECT_EQ(renewed, (generation & peer::kSweepMask) < 2 ? words.size() : filled)
          << generation << " channel " << channel;
    }
  }
}

}  // namespace
}  // namespace tandem
