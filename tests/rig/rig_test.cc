// Curves, hops, staged copies, all-reduces, paths and fingerprints.
#include "engine/rig/rig.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

constexpr DeviceId kD0{0};
constexpr DeviceId kD1{1};

// latency plus 1 ns a byte.
TimeCurve Line(int64_t latency_ns) {
  return TimeCurve{{{Bytes{0}, Nanos{latency_ns}}, {Bytes{1000000}, Nanos{latency_ns + 1000000}}}};
}

Rig TwoCards(LinkKind kind) {
  Rig rig;
  rig.name = "test";
  DeviceSpec card{.name = "card", .memory = Bytes{1000}, .memory_bytes_per_s = 1e9, .flops = 1e12};
  rig.devices = {card, card};
  rig.link.name = "wire";
  rig.link.kind = kind;
  rig.link.send = Line(5000);
  rig.host_link.kind = LinkKind::kHost;
  rig.host_link.send = Line(10000);
  return rig;
}

TEST(TimeCurveTest, InterpolatesExtendsAndStaysConstantBelow) {
  TimeCurve curve{{{Bytes{100}, Nanos{50}}, {Bytes{200}, Nanos{40}}, {Bytes{400}, Nanos{80}}}};
  EXPECT_EQ(curve.At(Bytes{0}), Nanos{50});
  EXPECT_EQ(curve.At(Bytes{100}), Nanos{50});
  EXPECT_EQ(curve.At(Bytes{150}), Nanos{45});
  EXPECT_EQ(curve.At(Bytes{200}), Nanos{40});
  EXPECT_EQ(curve.At(Bytes{300}), Nanos{60});
  EXPECT_EQ(curve.At(Bytes{400}), Nanos{80});
  EXPECT_EQ(curve.At(Bytes{500}), Nanos{100});
}

TEST(TimeCurveTest, RoundsToNearestAndDoesNotOverflow) {
  TimeCurve curve{{{Bytes{0}, Nanos{0}}, {Bytes{3}, Nanos{1}}}};
  EXPECT_EQ(curve.At(Bytes{1}), Nanos{0});
  EXPECT_EQ(curve.At(Bytes{2}), Nanos{1});
  TimeCurve wide{{{Bytes{0}, Nanos{0}}, {Bytes{uint64_t{1} << 40}, Nanos{int64_t{1} << 50}}}};
  EXPECT_EQ(wide.At(Bytes{uint64_t{1} << 41}), Nanos{int64_t{1} << 51});
}

TEST(RigTest, HopsTakeTheirOwnCurve) {
  Rig rig = TwoCards(LinkKind::kNvlink);
  EXPECT_EQ(rig.HopTime(kD0, kD1, Bytes{1000}), Nanos{6000});
  EXPECT_EQ(rig.HopTime(kHost, kD1, Bytes{1000}), Nanos{11000});
  EXPECT_EQ(rig.HopTime(kD1, kHost, Bytes{1000}), Nanos{11000});
  EXPECT_EQ(rig.HopTime(kD0, kD1, Bytes{0}), Nanos{0});
}

TEST(RigTest, IdealLinkMovesInNoTimeButTheHostDoesNot) {
  Rig rig = TwoCards(LinkKind::kIdeal);
  EXPECT_EQ(rig.HopTime(kD0, kD1, Bytes{1000}), Nanos{0});
  EXPECT_EQ(rig.AllReduceTime(2, Bytes{1000}), Nanos{0});
  EXPECT_EQ(rig.StagedHopTime(Bytes{1000}).total, Nanos{0});
  EXPECT_EQ(rig.ExchangeTime(3, Bytes{1000}), Nanos{0});
  EXPECT_GT(rig.HopTime(kHost, kD1, Bytes{1000}), Nanos{0});
}

TEST(RigTest, StagedHopsReproduceTheEndToEndCurve) {
  Rig rig = TwoCards(LinkKind::kHostStaged);
  for (uint64_t bytes : {1u, 4096u, 1000000u, 50000000u}) {
    for (int64_t latency : {100, 10000, 1000000}) {
      rig.host_link.send = Line(latency);
      StagedTime staged = rig.StagedHopTime(Bytes{bytes});
      EXPECT_EQ(staged.total, rig.link.send.At(Bytes{bytes}));
      EXPECT_LE(staged.hop, staged.total);
      EXPECT_GE(staged.hop + staged.hop, staged.total);  // the two hops leave no gap
    }
  }
}

TEST(RigTest, StagedDetourPipelinesLargeMessages) {
  Rig rig = TwoCards(LinkKind::kNvlink);
  // Small: up and down. Large: one 512 KiB chunk up, and the whole down.
  EXPECT_EQ(rig.StagedHopTime(Bytes{1000}).total, Nanos{2 * 11000});
  EXPECT_EQ(rig.StagedHopTime(Bytes{10000000}).total, Nanos{10010000 + 10000 + 524288});
}

TEST(RigTest, AllReduceOfTwoIsTheMeasuredCurveElseASend) {
  Rig rig = TwoCards(LinkKind::kNvlink);
  EXPECT_EQ(rig.AllReduceTime(2, Bytes{1000}), Nanos{6000});
  rig.link.full_duplex = false;
  EXPECT_EQ(rig.AllReduceTime(2, Bytes{1000}), Nanos{7000});
  rig.link.all_reduce = Line(40);
  EXPECT_EQ(rig.AllReduceTime(2, Bytes{1000}), Nanos{1040});
  EXPECT_EQ(rig.AllReduceTime(1, Bytes{1000}), Nanos{0});
  EXPECT_EQ(rig.AllReduceTime(2, Bytes{0}), Nanos{0});
  // The detour through the host does not get the link's own curve.
  EXPECT_EQ(rig.AllReduceTime(2, Bytes{1000}, PathKind::kHostStaged), Nanos{2 * 12000});
}

TEST(RigTest, AllReduceOfMoreIsTwoPhasesOfShards) {
  Rig rig = TwoCards(LinkKind::kNvlink);
  // Each phase sends two shards of 1000 bytes through each port: 5000 + 2000 ns.
  EXPECT_EQ(rig.AllReduceTime(3, Bytes{3000}), Nanos{14000});
  rig.link.all_reduce = Line(40);
  EXPECT_EQ(rig.AllReduceTime(3, Bytes{3000}), Nanos{4040});  // 2 * 2/3 of the bytes
  EXPECT_EQ(rig.AllReduceTime(4, Bytes{4000}), Nanos{6040});
}

TEST(RigTest, ResolvesAutoToTheLinksOwnPath) {
  EXPECT_EQ(TwoCards(LinkKind::kNvlink).ResolvePath(PathKind::kAuto), PathKind::kP2p);
  EXPECT_EQ(TwoCards(LinkKind::kPcieP2p).ResolvePath(PathKind::kAuto), PathKind::kP2p);
  EXPECT_EQ(TwoCards(LinkKind::kIdeal).ResolvePath(PathKind::kAuto), PathKind::kP2p);
  EXPECT_EQ(TwoCards(LinkKind::kHostStaged).ResolvePath(PathKind::kAuto), PathKind::kHostStaged);
  EXPECT_EQ(ThisMachineRig(2).ResolvePath(PathKind::kAuto), PathKind::kLocal);
  EXPECT_EQ(ThisMachineRig(2).ResolvePath(PathKind::kHostStaged), PathKind::kHostStaged);
  EXPECT_EQ(ThisMachineRig(2).HostPath(), PathKind::kLocal);
  EXPECT_EQ(TwoCards(LinkKind::kNvlink).HostPath(), PathKind::kCopy);
}

TEST(RigTest, RefusesAPathTheRigLacks) {
  Rig rig = TwoCards(LinkKind::kHostStaged);
  try {
    rig.ResolvePath(PathKind::kP2p);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDevice);
    EXPECT_THAT(error.what(), HasSubstr("path p2p"));
    EXPECT_THAT(error.what(), HasSubstr("host_staged, nccl"));
  }
  EXPECT_THROW(ThisMachineRig(2).ResolvePath(PathKind::kNccl), Error);
}

TEST(RigTest, PathAndLinkNamesRoundTrip) {
  for (PathKind path : {PathKind::kAuto, PathKind::kLocal, PathKind::kCopy, PathKind::kP2p,
                        PathKind::kHostStaged, PathKind::kNccl}) {
    EXPECT_EQ(PathKindFromName(ToString(path)), path);
  }
  for (LinkKind kind : {LinkKind::kIdeal, LinkKind::kNvlink, LinkKind::kPcieP2p,
                        LinkKind::kHostStaged, LinkKind::kLocal, LinkKind::kHost}) {
    EXPECT_EQ(LinkKindFromName(ToString(kind)), kind);
  }
  EXPECT_EQ(PathKindFromName("nvlink"), std::nullopt);
}

TEST(RigTest, FingerprintFollowsWhatInfluencesTimeOnly) {
  Rig rig = TwoCards(LinkKind::kNvlink);
  Rig renamed = rig;
  renamed.name = "other";
  renamed.link.source = "elsewhere";
  renamed.devices[0].name = "x";
  EXPECT_EQ(rig.Fingerprint(), renamed.Fingerprint());
  Rig faster = rig;
  faster.link.send = Line(1);
  EXPECT_NE(rig.Fingerprint(), faster.Fingerprint());
  EXPECT_EQ(rig.FingerprintWithoutLinks(), faster.FingerprintWithoutLinks());
  Rig stronger = rig;
  stronger.devices[1].flops *= 2;
  EXPECT_NE(rig.FingerprintWithoutLinks(), stronger.FingerprintWithoutLinks());
}

TEST(RigTest, ThisMachineSharesItsMemoryOut) {
  Rig rig = ThisMachineRig(3);
  ASSERT_EQ(rig.size(), 3u);
  EXPECT_TRUE(rig.is_this_machine);
  EXPECT_GT(rig.host_memory.value, uint64_t{1} << 20);
  EXPECT_EQ(rig.devices[0].memory.value, rig.host_memory.value / 3);
  EXPECT_GT(rig.HopTime(kD0, kD1, Bytes{1}), Nanos{0});
}

}  // namespace
}  // namespace tandem
