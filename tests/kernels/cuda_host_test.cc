// The host side of the CUDA back end: how attention is cut, how tables reach the GPU, what is
// refused, and the packed layout's every bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>
#include <set>

#include "engine/base/error.h"
#include "engine/device/cpu/cpu_device.h"
#include "engine/model/quant_block.h"
#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/fetch_ahead.h"
#include "kernels/cuda/step_tables.h"
#include "tests/kernels/kernel_test_support.h"
#include "tests/kernels/staged_ops.h"

namespace tandem::cuda {
namespace {

struct Sequences {
  std::vector<std::vector<int32_t>> pages;
  std::vector<SequenceRows> rows;

  void Add(uint32_t n_rows, uint32_t start) {
    const uint32_t first = rows.empty() ? 0 : rows.back().first_row + rows.back().n_rows;
    pages.emplace_back((start + n_rows + kPageTokens - 1) / kPageTokens, 7);
    rows.push_back({first, n_rows, start, nullptr});
    for (size_t i = 0; i < rows.size(); ++i) rows[i].pages = pages[i].data();
  }
};

// Every query of every sequence is in one tile's range, and every fold it may see is run once.
void ExpectCovers(const AttentionPlan& plan, const Sequences& all, uint32_t group,
                  uint32_t window) {
  std::map<std::pair<uint32_t, uint32_t>, std::multiset<uint32_t>> folds;  // (first row, query)
  std::vector<AttentionTile> tiles = plan.tiles;
  tiles.insert(tiles.end(), plan.wide.begin(), plan.wide.end());
  for (size_t i = 0; i < tiles.size(); ++i) {
    const AttentionTile& tile = tiles[i];
    EXPECT_TRUE(tile.n > 0 && tile.n <= (i < plan.tiles.size() ? kTileQueries : 64));
    for (uint32_t q = tile.first_query; q < tile.first_query + tile.n; ++q) {
      for (uint32_t f = tile.fold_begin; f < tile.fold_end; ++f) {
        folds[{tile.first_row, q}].insert(f);
      }
    }
  }
  for (const SequenceRows& sequence : all.rows) {
    for (uint32_t q = 0; q < sequence.n_rows * group; ++q) {
      const uint32_t position = sequence.start + q / group;
      const uint32_t first = window > 0 && window <= position ? position + 1 - window : 0;
      const auto& got = folds[{sequence.first_row, q}];
      for (uint32_t f = first / kAttentionFold; f <= position / kAttentionFold; ++f) {
        EXPECT_EQ(got.count(f), 1u) << "query " << q << " fold " << f;
      }
    }
  }
}

TEST(AttentionPlanTest, CoversEveryQueryAndFoldOnceSplitOrNot) {
  Sequences all;
  all.Add(1, 1000);
  all.Add(5, 250);
  all.Add(40, 0);
  all.Add(1, 255);
  all.Add(1, 256);
  for (uint32_t window : {0u, 1u, 300u, 5000u}) {
    for (uint32_t blocks : {1u, 1000u}) {
      for (uint32_t group : {1u, 3u, 40u}) {
        const AttentionPlan plan = PlanAttention(all.rows, {group, 2, window}, {blocks, 1 << 20});
        ExpectCovers(plan, all, group, window);
        ExpectCovers(PlanAttention(all.rows, {group, 2, window}, {blocks, 1 << 20, 64}), all, group,
                     window);
        // Windows of one position leave every tile a single fold, but for those across a border.
        if (window != 1) {
          EXPECT_EQ(plan.joins.empty(), blocks == 1);
        }
      }
    }
  }
}

TEST(AttentionPlanTest, GivesEachFoldThatRunsApartAPlaceOfItsOwn) {
  Sequences all;
  all.Add(1, 1000);
  all.Add(2, 700);
  all.Add(1, 3);
  const AttentionPlan plan = PlanAttention(all.rows, {4, 2, 0}, {1000, 1 << 20});
  std::set<uint32_t> places;
  for (const AttentionTile& tile : plan.tiles) {
    if (tile.partial == kNoPartial) continue;
    EXPECT_EQ(tile.fold_end, tile.fold_begin + 1);
    EXPECT_TRUE(places.insert(tile.partial).second);
    EXPECT_LT(tile.partial, plan.partials);
  }
  uint64_t joined = 0;
  for (const AttentionTile& tile : plan.joins) joined += tile.fold_end - tile.fold_begin;
  EXPECT_EQ(joined, plan.partials);
  EXPECT_EQ(places.size(), plan.partials);
  EXPECT_EQ(plan.tiles.size(), plan.partials + 1);  // the short sequence writes its output itself
  // Too many to be kept: nothing runs apart.
  EXPECT_EQ(PlanAttention(all.rows, {4, 2, 0}, {1000, 2 * plan.partials - 1}).partials, 0u);
}

TEST(AttentionPlanTest, TilesAreWideForManyQueriesWhereTheyAreEnoughForTheGpu) {
  Sequences all;
  all.Add(100, 30);  // 400 queries: 7 wide tiles of 2 KV heads
  all.Add(1, 2000);
  all.Add(9, 0);  // 36 queries: one
  all.Add(8, 0);  // 32: narrow
  const AttentionPlan plan = PlanAttention(all.rows, {4, 2, 0}, {32, 1 << 20, 64});
  ASSERT_EQ(plan.wide.size(), 8u);
  EXPECT_EQ(plan.wide[0].first_row, 101u);
  EXPECT_EQ(plan.wide[0].n, 36u);
  EXPECT_EQ(plan.wide[1].first_query, 384u) << "late ones first";
  EXPECT_EQ(plan.wide[1].n, 16u);
  EXPECT_EQ(plan.wide[1].pages, 0u);
  // The long past beside them runs in its own launch, its folds side by side.
  EXPECT_EQ(plan.joins.size(), 1u);
  EXPECT_EQ(plan.tiles.size(), 8u + 2u);
  EXPECT_TRUE(PlanAttention(all.rows, {4, 2, 0}, {33, 1 << 20, 64}).wide.empty());
  EXPECT_TRUE(PlanAttention(all.rows, {4, 2, 0}, {32, 1 << 20, 0}).wide.empty());
}

TEST(AttentionPlanTest, AStepOfOneRowASequenceIsNeverWide) {
  Sequences all;
  all.Add(1, 1000);
  all.Add(1, 20);
  EXPECT_TRUE(PlanAttention(all.rows, {64, 4, 0}, {1, 1 << 20, 64}).wide.empty());
}

TEST(FetchAheadTest, KeepsMemoryBusyWithinHalfOfTheCache) {
  const GpuFacts h200{.sm_count = 132, .compute = 90, .l2_bytes = 50 << 20};
  const GpuFacts rtx3090{.sm_count = 82, .compute = 86, .l2_bytes = 6 << 20};
  for (const GpuFacts& facts : {h200, rtx3090}) {
    for (DType type : kAllDTypes) {
      for (uint32_t panels : {1u, 128u, 256u, 1792u}) {
        const uint64_t sms = static_cast<uint64_t>(facts.sm_count);
        const uint64_t blocks = std::min<uint64_t>(3, (panels + sms - 1) / sms);
        const uint64_t round = blocks * 8 * GroupBytesOf(type);
        const uint64_t ahead = GroupsAhead(type, panels, facts);
        EXPECT_LE(ahead * round * sms, facts.l2_bytes / 2);
        EXPECT_LT(ahead, 9u);
        // Enough, or as much as fits.
        EXPECT_TRUE(ahead * round >= kBytesUnderWay || ahead == kMostAhead ||
                    (ahead + 1) * round * sms > facts.l2_bytes / 2)
            << ToString(type) << " " << panels;
      }
    }
  }
  EXPECT_EQ(GroupsAhead(DType::kQ4_0, 1792, h200), 3u);
  EXPECT_EQ(GroupsAhead(DType::kBF16, 1792, rtx3090), 0u);  // registers hold enough
}

class StepTableTest : public ::testing::Test {
 protected:
  StepTableTest()
      : device_(DeviceId{0}, Bytes{0}, std::make_shared<ThreadPool>(ThreadPoolOptions{1})) {}
  CpuDevice device_;
};

TEST_F(StepTableTest, CopiesWhatChangedAlone) {
  PinnedRing ring(1024, nullptr);
  StepTable table(device_, nullptr, ring, "test");
  std::vector<int32_t> rows = {1, 2, 3};
  bool changed = false;
  const int32_t* held = table.Put(std::span<const int32_t>(rows), &changed);
  EXPECT_TRUE(changed);
  EXPECT_EQ(std::vector<int32_t>(held, held + 3), rows);
  EXPECT_EQ(table.Put(std::span<const int32_t>(rows), &changed), held);
  EXPECT_FALSE(changed);
  rows[1] = 9;
  held = table.Put(std::span<const int32_t>(rows), &changed);
  EXPECT_TRUE(changed);
  EXPECT_EQ(held[1], 9);
  rows.pop_back();
  table.Put(std::span<const int32_t>(rows), &changed);
  EXPECT_TRUE(changed);
}

TEST_F(StepTableTest, TheRingTakesTablesLongerThanItself) {
  PinnedRing ring(256, nullptr);
  StepTable table(device_, nullptr, ring, "test");
  for (size_t n : {10u, 1000u, 63u, 64u, 65u, 50000u}) {
    std::vector<int32_t> rows(n);
    for (size_t i = 0; i < n; ++i) rows[i] = static_cast<int32_t>(i * n);
    const int32_t* held = table.Put(std::span<const int32_t>(rows));
    EXPECT_EQ(std::vector<int32_t>(held, held + n), rows) << n;
  }
}

TEST(CudaOpsTest, RefusesHeadsThatAreTooWide) {
  const Bench bench = MakeBench({Tiers()[0], ActivationType::kInt8});
  const uint32_t hd = 264;
  std::vector<uint16_t> memory(2 * kPageTokens * hd);
  const KvView kv{reinterpret_cast<std::byte*>(memory.data()), memory.size() * 2, 1, hd};
  const int32_t page = 0;
  const SequenceRows rows{0, 1, 0, &page};
  std::vector<float> q(hd), out(hd);
  try {
    bench.ops->Attention(q.data(), 1, 0, {&rows, 1}, kv, out.data());
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("264"));
  }
}

TEST(CudaOpsTest, TakesHeadsOfTwoHundredAndFiftySix) {
  const Bench bench = MakeBench({Tiers()[0], ActivationType::kInt8});
  const std::unique_ptr<Ops> ref = MakeRefOps(ActivationType::kInt8);
  const uint32_t hd = 256, total = 70;
  std::vector<uint16_t> memory(2 * 2 * kPageTokens * hd, 0x7e00), plain = memory;
  const int32_t pages[] = {1, 0};
  const SequenceRows rows{0, total, 0, pages};
  const std::vector<float> q = RandomFloats(total * 2 * hd, 1), k = RandomFloats(total * hd, 2),
                           v = RandomFloats(total * hd, 3);
  std::vector<float> got = Poison(q.size()), want = got;
  const auto run = [&](Ops& ops, std::vector<uint16_t>& kv_memory, std::vector<float>& out) {
    std::vector<float> rotated = q, keys = k;
    const KvView kv{reinterpret_cast<std::byte*>(kv_memory.data()), memory.size(), 1, hd};
    ops.RopeAndStore(rotated.data(), keys.data(), v.data(), 2, {.rope_dim = hd}, {&rows, 1}, kv);
    ops.Attention(rotated.data(), 2, 0, {&rows, 1}, kv, out.data());
  };
  run(*bench.ops, memory, got);
  run(*ref, plain, want);
  EXPECT_TRUE(Near(got, want, 2 * hd, [](size_t) { return 0x1p-24 * 256; }));
}

// What the suites run through on a GPU, where the host's memory is not the GPU's.
TEST(StagedOpsTest, GivesWhatTheOpsWithinGive) {
  constexpr HostCopies kCopies = {
      .to_gpu = [](void* to, const void* from, size_t n) { std::memcpy(to, from, n); },
      .to_host = [](void* to, const void* from, size_t n) { std::memcpy(to, from, n); },
  };
  const Bench plain = MakeBench({Tiers()[0], ActivationType::kInt8});
  Bench bench = MakeBench({Tiers()[0], ActivationType::kInt8});
  const std::unique_ptr<Ops> staged = MakeStagedOps(std::move(bench.ops), *bench.device, kCopies);
  const uint64_t rows = 20, cols = 160, n = 3, stride = 50;
  const TestTensor w = MakeTensor(DType::kQ4_0, rows, cols, 1);
  const std::vector<float> x = RandomFloats(n * cols, 2);
  std::vector<std::vector<float>> results;
  for (Ops* ops : {plain.ops.get(), staged.get()}) {
    const Packed packed = PackSlice(*ops, w, Whole(w.view));
    const Prepared prepared = Prepare(*ops, x, n, cols, DType::kQ4_0);
    std::vector<float> y = Poison(n * stride);
    const MatMulTask tasks[] = {{&packed.matrix, Whole(w.view), y.data(), stride},
                                {&packed.matrix, {3, 20, 0, cols}, y.data() + 21, stride}};
    ops->MatMul(prepared.rows, tasks);
    for (uint64_t t = 0; t < n; ++t) {
      ops->Add(y.data() + t * stride, y.data() + t * stride, rows, y.data() + t * stride);
      ops->RmsNorm(y.data() + t * stride, x.data(), 1e-5f, 1, rows, y.data() + t * stride);
    }
    ops->CopyRows(x.data(), cols, y.data() + 40, stride, 5, n);
    std::vector<float> glu = Poison(cols);
    ops->SwiGlu(x.data(), x.data() + cols, cols, glu.data());
    ops->AddBias(x.data(), 1, cols, glu.data());
    ops->Zero(glu.data(), 2);
    y.insert(y.end(), glu.begin(), glu.end());
    results.push_back(y);
  }
  EXPECT_TRUE(Same(results[1], results[0], stride));
}

// Random stored bits, every one of which must come back: only the halves that scale are kept
// finite.
TEST(CudaOpsTest, EveryStoredBitOfATableComesBack) {
  const Bench bench = MakeBench({Tiers()[0], ActivationType::kInt8});
  for (DType type : kAllDTypes) {
    const DTypeTraits& traits = Traits(type);
    for (uint64_t blocks : {1, 3, 4, 6}) {
      const uint64_t rows = 21, cols = blocks * (traits.quantized ? traits.block_elems : 7);
      TestTensor w = MakeTensor(type, rows, cols, 1);
      std::mt19937 random(5);
      for (size_t at = 0; at < w.bytes.size(); at += traits.block_bytes) {
        for (size_t i = 0; i < traits.block_bytes; ++i) {
          if (traits.quantized) w.bytes[at + i] = static_cast<std::byte>(random());
        }
        const size_t halves = type == DType::kQ6_K ? 208 : 0;
        const size_t n = !traits.quantized ? 0 : HasMinimum(type) ? 2 : 1;
        for (size_t i = 0; i < n; ++i) {
          w.bytes[at + halves + 2 * i + 1] &= std::byte{0x3f};
        }
      }
      const Packed packed = PackSlice(*bench.ops, w, Whole(w.view));
      std::vector<int32_t> ids(rows);
      for (size_t i = 0; i < rows; ++i) ids[i] = static_cast<int32_t>(rows - 1 - i);
      std::vector<float> got = Poison(rows * cols), want(rows * cols);
      bench.ops->Embed(packed.matrix, Whole(w.view), ids, got.data());
      bench.ops->Finish();
      for (size_t i = 0; i < rows; ++i) {
        DequantizeRow(type, w.view.row(rows - 1 - i), want.data() + i * cols, cols);
      }
      EXPECT_EQ(got, want) << ToString(type) << " of " << blocks << " blocks";
    }
  }
}

}  // namespace
}  // namespace tandem::cuda
