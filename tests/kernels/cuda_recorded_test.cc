// Ops of a recorded step on the emulated GPU: recorded with some sequences, replayed with others
// after their tables were filled, they give the bits of ops that are told of those others directly.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "engine/base/error.h"
#include "tests/kernels/kernel_test_support.h"
#include "tests/support/cuda_emulation/kept_launches.h"

namespace tandem::cuda {
namespace {

constexpr uint32_t kHeadDim = 32, kKvHeads = 2, kHeads = 6, kHidden = 64, kVocab = 90;
constexpr uint32_t kPositions = 1024, kPages = 40;

// One row a sequence, at the given positions; pages are handed out in an order of the seed's.
struct Rows {
  Rows(const std::vector<uint32_t>& starts, int32_t seed) {
    int32_t page = seed;
    for (uint32_t start : starts) {
      pages.emplace_back();
      for (uint32_t i = 0; i <= start / kPageTokens; ++i) {
        page = (page + 7) % static_cast<int32_t>(kPages);  // each once in 40
        pages.back().push_back(page);
      }
      ids.push_back((seed * 13 + static_cast<int32_t>(start)) % static_cast<int32_t>(kVocab));
    }
    for (uint32_t i = 0; i < starts.size(); ++i) {
      sequences.push_back({i, 1, starts[i], pages[i].data()});
    }
  }
  StepRows step() const { return {ids, sequences}; }
  std::vector<int32_t> ids;
  std::vector<std::vector<int32_t>> pages;
  std::vector<SequenceRows> sequences;
};

// What a step of two attention layers writes.
struct Results {
  explicit Results(uint64_t n)
      : embedded(Poison(n * kHidden)), out(Poison(n * kHeads * kHeadDim)), windowed(out) {
    q = RandomFloats(n * kHeads * kHeadDim, 1);
    k = RandomFloats(n * kKvHeads * kHeadDim, 2);
    v = RandomFloats(n * kKvHeads * kHeadDim, 3);
    memory.resize(uint64_t{kPages} * 2 * kKvHeads * kPageTokens * kHeadDim);
    for (size_t i = 0; i < memory.size(); ++i) {
      memory[i] = static_cast<uint16_t>(0x2c00 + i * 2654435761u % 0x0fff);  // some 0.06 to 0.5
    }
  }
  KvView kv() {
    return {reinterpret_cast<std::byte*>(memory.data()),
            uint64_t{4} * kKvHeads * kPageTokens * kHeadDim, kKvHeads, kHeadDim};
  }
  std::vector<float> embedded, out, windowed, q, k, v;
  std::vector<uint16_t> memory;
};

class CudaRecordedTest : public ::testing::Test {
 protected:
  CudaRecordedTest()
      : bench_(MakeBench({Tiers()[0], ActivationType::kInt8})),
        table_(MakeTensor(DType::kQ8_0, kVocab, kHidden, 4)),
        packed_(PackSlice(*bench_.ops, table_, Whole(table_.view))) {}
  ~CudaRecordedTest() override { KeepLaunches(nullptr); }

  Ops& ops() { return *bench_.ops; }
  void Ask(const StepRows& rows, Results& results) {
    const RopeParams rope{.rope_dim = kHeadDim, .magnitude = 1.25f};
    ops().Embed(packed_.matrix, Whole(table_.view), rows.ids, results.embedded.data());
    ops().RopeAndStore(results.q.data(), results.k.data(), results.v.data(), kHeads, rope,
                       rows.sequences, results.kv());
    ops().Attention(results.q.data(), kHeads, 0, rows.sequences, results.kv(), results.out.data());
    ops().Attention(results.q.data(), kHeads, 300, rows.sequences, results.kv(),
                    results.windowed.data());
  }
  static void ExpectTheSame(const Results& got, const Results& want) {
    EXPECT_TRUE(Same(got.embedded, want.embedded, kHidden));
    EXPECT_TRUE(Same(got.q, want.q, kHeads * kHeadDim));
    EXPECT_TRUE(Same(got.out, want.out, kHeads * kHeadDim));
    EXPECT_TRUE(Same(got.windowed, want.windowed, kHeads * kHeadDim));
    EXPECT_EQ(got.memory, want.memory);
  }

  Bench bench_;
  TestTensor table_;
  Packed packed_;
};

TEST_F(CudaRecordedTest, ReplaysWithOtherRowsGiveTheirBits) {
  // Few sequences, whose folds run side by side, and enough to keep the GPU busy whole.
  const std::vector<std::vector<std::vector<uint32_t>>> cases{
      {{5}, {1023}, {0}, {255}, {256}, {700}},
      {{0, 300}, {800, 2}, {255, 256}, {1000, 511}},
      {{1, 2, 3, 4, 5, 6, 7, 8, 9}, {300, 70, 0, 64, 255, 256, 513, 63, 127}}};
  for (const auto& starts : cases) {
    const Rows first(starts[0], 1);
    std::vector<std::function<void()>> kept;
    Results results(starts[0].size());
    const StepRows known[] = {first.step()};
    ops().recorder()->Begin(known, kPositions);
    KeepLaunches(&kept);
    Ask(known[0], results);
    KeepLaunches(nullptr);
    const auto recorded = ops().recorder()->End();
    ASSERT_FALSE(kept.empty());
    EXPECT_TRUE(std::isnan(results.out[0])) << "kept, not done";
    for (size_t i = 0; i < starts.size(); ++i) {
      SCOPED_TRACE("rows " + std::to_string(starts[i].size()) + " replay " + std::to_string(i));
      const Rows rows(starts[i], static_cast<int32_t>(i));
      const Results fresh(starts[0].size());
      std::copy(fresh.q.begin(), fresh.q.end(), results.q.begin());
      std::copy(fresh.k.begin(), fresh.k.end(), results.k.begin());
      std::copy(fresh.memory.begin(), fresh.memory.end(), results.memory.begin());
      const StepRows step[] = {rows.step()};
      ops().recorder()->Fill(*recorded, step);
      for (const auto& launch : kept) launch();
      Results want(starts[0].size());
      Ask(rows.step(), want);
      ExpectTheSame(results, want);
    }
  }
}

TEST_F(CudaRecordedTest, MicrobatchesHaveTablesOfTheirOwn) {
  const Rows a({5, 90}, 1), b({400}, 2), none({}, 0);
  std::vector<std::function<void()>> kept;
  Results of_a(2), of_b(1);
  const StepRows known[] = {a.step(), none.step(), b.step()};
  ops().recorder()->Begin(known, kPositions);
  KeepLaunches(&kept);
  Ask(known[0], of_a);
  Ask(known[2], of_b);
  KeepLaunches(nullptr);
  const auto recorded = ops().recorder()->End();
  const Rows c({600, 1}, 3), d({258}, 4);
  const StepRows step[] = {c.step(), none.step(), d.step()};
  ops().recorder()->Fill(*recorded, step);
  for (const auto& launch : kept) launch();
  Results want_a(2), want_b(1);
  Ask(c.step(), want_a);
  Ask(d.step(), want_b);
  ExpectTheSame(of_a, want_a);
  ExpectTheSame(of_b, want_b);
}

TEST_F(CudaRecordedTest, APartOfAMicrobatchIsRefused) {
  const Rows rows({5, 90}, 1);
  Results results(2);
  const StepRows known[] = {rows.step()};
  ops().recorder()->Begin(known, kPositions);
  const std::vector<SequenceRows> part(rows.sequences.begin(), rows.sequences.begin() + 1);
  try {
    ops().Attention(results.q.data(), kHeads, 0, part, results.kv(), results.out.data());
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("--graphs off"));
  }
  ops().recorder()->End();
  Ask(rows.step(), results);  // and the ops go on
  EXPECT_FALSE(std::isnan(results.out[0]));
}

}  // namespace
}  // namespace tandem::cuda
