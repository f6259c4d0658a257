// Collectives against a plain sum in rank order: bit-exact, the same on every rank, and the bytes
// that the formulas of engine/plan/cost.h name.
#include "engine/link/collectives.h"

#include <gtest/gtest.h>

#include "engine/link/wire.h"
#include "tests/link/link_fixture.h"

namespace tandem {
namespace {

using testing::LinkDevices;
using testing::RandomFloats;
using testing::SameBits;

struct Case {
  uint32_t ranks;
  WireType wire;
  PathKind path;
};

class CollectivesTest : public ::testing::TestWithParam<Case> {
 protected:
  CollectivesTest() : link_(GetParam().ranks) {
    transport_ = MakeTransport(GetParam().path, GetParam().path, link_.host.get());
    // Small scratch, so that messages cross in several pieces.
    const uint64_t scratch = 2 * MinCollectiveScratch(GetParam().ranks);
    context_ = CollectiveContext{.transport = transport_.get(),
                                 .ledger = &link_.ledger,
                                 .wire = GetParam().wire,
                                 .scratch_bytes = scratch};
    for (uint32_t r = 0; r < GetParam().ranks; ++r) scratch_.emplace_back(scratch);
  }

  uint32_t ranks() const { return GetParam().ranks; }
  void Partials(size_t n) {
    for (uint32_t r = 0; r < ranks(); ++r) in_.push_back(RandomFloats(n, 100 + r));
  }
  std::vector<CollectiveRank> Ranks() {
    std::vector<CollectiveRank> list;
    for (uint32_t r = 0; r < ranks(); ++r) {
      list.push_back(
          {DeviceId{static_cast<int32_t>(r)}, in_[r].data(), out_[r].data(), scratch_[r].data()});
    }
    return list;
  }
  std::vector<float> Rounded(const std::vector<float>& x) const {
    std::vector<float> y(x.size());
    RoundToWire(GetParam().wire, x.data(), x.size(), y.data());
    return y;
  }
  // Sum of the partials as a receiver sees them, rank by rank.
  std::vector<float> RankOrderSum(size_t begin, size_t end) const {
    std::vector<float> sum;
    for (uint32_t r = 0; r < ranks(); ++r) {
      const std::vector<float> part = Rounded(
          {in_[r].begin() + static_cast<long>(begin), in_[r].begin() + static_cast<long>(end)});
      if (r == 0) {
        sum = part;
      } else {
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
      }
    }
    return sum;
  }
  Bytes Booked() const {
    Bytes sum;
    for (const HopRow& row : link_.ledger.rows()) sum += row.bytes;
    return sum;
  }
  // Both hops of a staged message count.
  uint64_t hops() const { return GetParam().path == PathKind::kHostStaged ? 2 : 1; }

  LinkDevices link_;
  std::unique_ptr<Transport> transport_;
  CollectiveContext context_;
  std::vector<std::vector<std::byte>> scratch_;
  std::vector<std::vector<float>> in_, out_;
};

TEST_P(CollectivesTest, OneShotGivesTheRankOrderSumEverywhere) {
  constexpr size_t kN = 577;
  Partials(kN);
  out_.assign(ranks(), std::vector<float>(kN, -1));
  AllReduce(context_, Algorithm::kOneShot, Ranks(), kN);
  const std::vector<float> want = RankOrderSum(0, kN);
  for (uint32_t r = 0; r < ranks(); ++r) EXPECT_TRUE(SameBits(out_[r], want)) << "rank " << r;
  EXPECT_EQ(Booked(), WireBytes(GetParam().wire, kN) * (ranks() * (ranks() - 1) * hops()));
}

TEST_P(CollectivesTest, TwoShotRoundsTheSumOnceMoreAndAgrees) {
  constexpr size_t kN = 577;
  Partials(kN);
  out_.assign(ranks(), std::vector<float>(kN, -1));
  AllReduce(context_, Algorithm::kTwoShot, Ranks(), kN);
  std::vector<float> want;
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < ranks(); ++i) {
    const size_t begin = kN * i / ranks(), end = kN * (i + 1) / ranks();
    const std::vector<float> shard = Rounded(RankOrderSum(begin, end));
    want.insert(want.end(), shard.begin(), shard.end());
    bytes += 2 * (ranks() - 1) * WireBytes(GetParam().wire, end - begin).value;
  }
  for (uint32_t r = 0; r < ranks(); ++r) EXPECT_TRUE(SameBits(out_[r], want)) << "rank " << r;
  EXPECT_EQ(Booked(), Bytes{bytes * hops()});
}

TEST_P(CollectivesTest, ReduceScatterThenAllGatherIsTwoShot) {
  constexpr uint64_t kRows = 11, kWidth = 53;
  Partials(kRows * kWidth);
  std::vector<uint64_t> cuts;
  for (uint64_t i = 0; i <= ranks(); ++i) cuts.push_back(kRows * i / ranks() * kWidth);
  out_.clear();
  for (uint32_t r = 0; r < ranks(); ++r) out_.emplace_back(cuts[r + 1] - cuts[r], -1.0f);
  ReduceScatter(context_, Ranks(), cuts);
  std::vector<float> want;
  for (uint32_t r = 0; r < ranks(); ++r) {
    const std::vector<float> shard = RankOrderSum(cuts[r], cuts[r + 1]);
    EXPECT_TRUE(SameBits(out_[r], shard)) << "shard " << r;
    const std::vector<float> rounded = Rounded(shard);
    want.insert(want.end(), rounded.begin(), rounded.end());
  }
  in_ = out_;
  out_.assign(ranks(), std::vector<float>(kRows * kWidth, -1));
  AllGather(context_, Ranks(), cuts);
  for (uint32_t r = 0; r < ranks(); ++r) EXPECT_TRUE(SameBits(out_[r], want)) << "rank " << r;
}

TEST_P(CollectivesTest, ColumnsLandInTheirPlaces) {
  constexpr uint64_t kRows = 3;
  uint64_t width = 0;
  std::vector<ColumnShard> shards;
  for (uint32_t r = 0; r < ranks(); ++r) {
    shards.push_back({width, 40 + 9 * r});
    width += 40 + 9 * r;
    in_.push_back(RandomFloats(kRows * shards.back().width, 200 + r));
  }
  out_.assign(ranks(), std::vector<float>(kRows * width, -1));
  AllGatherColumns(context_, Ranks(), shards, kRows, width);
  std::vector<float> want(kRows * width);
  uint64_t bytes = 0;
  for (uint32_t r = 0; r < ranks(); ++r) {
    const std::vector<float> rounded = Rounded(in_[r]);
    bytes += (ranks() - 1) * WireBytes(GetParam().wire, rounded.size()).value;
    for (uint64_t row = 0; row < kRows; ++row) {
      std::copy_n(rounded.begin() + static_cast<long>(row * shards[r].width), shards[r].width,
                  want.begin() + static_cast<long>(row * width + shards[r].begin));
    }
  }
  for (uint32_t r = 0; r < ranks(); ++r) EXPECT_TRUE(SameBits(out_[r], want)) << "rank " << r;
  EXPECT_EQ(Booked(), Bytes{bytes * hops()});
}

TEST_P(CollectivesTest, SendDeliversTheRoundedMessage) {
  constexpr size_t kN = 301;
  Partials(kN);
  out_.assign(ranks(), std::vector<float>(kN, -1));
  const std::vector<CollectiveRank> list = Ranks();
  SendActivations(context_, list[0], list[1], kN);
  EXPECT_TRUE(SameBits(out_[1], Rounded(in_[0])));
  EXPECT_EQ(Booked(), WireBytes(GetParam().wire, kN) * hops());
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (uint32_t ranks : {2u, 3u, 4u}) {
    for (WireType wire : {WireType::kF32, WireType::kBf16, WireType::kQ8}) {
      cases.push_back({ranks, wire, PathKind::kLocal});
    }
  }
  cases.push_back({2, WireType::kF32, PathKind::kHostStaged});
  cases.push_back({3, WireType::kQ8, PathKind::kHostStaged});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, CollectivesTest, ::testing::ValuesIn(Cases()), [](const auto& info) {
  return std::to_string(info.param.ranks) + "_" + ToString(info.param.wire) + "_" +
         ToString(info.param.path);
});

TEST(CollectivesBitsTest, AlgorithmsAgreeOnAnF32Wire) {
  LinkDevices link(3);
  auto transport = MakeTransport(PathKind::kLocal, PathKind::kLocal, nullptr);
  std::vector<std::vector<float>> in, one(3, std::vector<float>(100)), two = one;
  std::vector<std::vector<std::byte>> scratch(3, std::vector<std::byte>(MinCollectiveScratch(3)));
  for (uint32_t r = 0; r < 3; ++r) in.push_back(RandomFloats(100, r));
  const CollectiveContext context{
      .transport = transport.get(), .ledger = &link.ledger, .scratch_bytes = scratch[0].size()};
  for (auto* out : {&one, &two}) {
    std::vector<CollectiveRank> ranks;
    for (uint32_t r = 0; r < 3; ++r) {
      ranks.push_back(
          {DeviceId{static_cast<int32_t>(r)}, in[r].data(), (*out)[r].data(), scratch[r].data()});
    }
    AllReduce(context, out == &one ? Algorithm::kOneShot : Algorithm::kTwoShot, ranks, 100);
  }
  EXPECT_TRUE(SameBits(one[0], two[0]));
  EXPECT_TRUE(SameBits(one[2], two[1]));
}

}  // namespace
}  // namespace tandem
