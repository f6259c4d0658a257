// The largest values of rows, of every back end against the definition, with equal values, NaN,
// infinities and rows shorter than k.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "tests/kernels/kernel_test_support.h"

namespace tandem {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class TopKTest : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    bench_ = MakeBench(GetParam());
    if (!bench_.ops) GTEST_SKIP() << bench_.missing;
  }
  std::vector<TopEntry> Run(const std::vector<float>& x, uint32_t width, uint32_t k) {
    const uint64_t n = x.size() / width;
    std::vector<TopEntry> out(n * k + 1, TopEntry{-7, -7});
    std::vector<std::byte> scratch(bench_.ops->TopKBytes(n, width, k), std::byte{0xee});
    bench_.ops->TopK(x.data(), n, width, k, scratch.data(), out.data());
    bench_.ops->Finish();
    EXPECT_EQ(out.back().id, -7) << "wrote past its result";
    out.pop_back();
    return out;
  }
  void ExpectDefinition(const std::vector<float>& x, uint32_t width, uint32_t k) {
    const std::vector<TopEntry> got = Run(x, width, k);
    std::vector<int32_t> order(width);
    for (size_t t = 0; t < x.size() / width; ++t) {
      const float* row = x.data() + t * width;
      for (uint32_t i = 0; i < width; ++i) order[i] = static_cast<int32_t>(i);
      std::sort(order.begin(), order.end(),
                [&](int32_t a, int32_t b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
      for (uint32_t i = 0; i < k; ++i) {
        const TopEntry& entry = got[t * k + i];
        ASSERT_EQ(entry.id, i < width ? order[i] : kNoEntry)
            << "row " << t << " place " << i << " of " << k << ", width " << width;
        if (i < width) {
          ASSERT_EQ(entry.value, row[order[i]]);
        }
      }
    }
  }
  Bench bench_;
};

TEST_P(TopKTest, FollowsItsDefinition) {
  for (uint32_t width : {1u, 7u, 256u, 1000u, 4096u, 9001u}) {
    const std::vector<float> x = RandomFloats(size_t{3} * width, width, 9.0f);
    for (uint32_t k : {1u, 2u, 33u, kMostTopK}) ExpectDefinition(x, width, k);
  }
}

TEST_P(TopKTest, EqualValuesComeByColumn) {
  for (uint32_t width : {40u, 5000u}) {
    std::vector<float> x(width, 2.0f);
    ExpectDefinition(x, width, 48);
    for (uint32_t i = 0; i < width; ++i) x[i] = static_cast<float>(i % 3);
    x[width - 1] = -0.0f;
    ExpectDefinition(x, width, 48);
  }
}

TEST_P(TopKTest, InfinitiesAreValues) {
  std::vector<float> x = RandomFloats(6000, 5);
  x[17] = kInfinity;
  x[5999] = kInfinity;
  ExpectDefinition(x, 6000, 3);
  std::vector<float> low(50, -kInfinity);
  low[31] = 1.0f;
  ExpectDefinition(low, 50, 5);
}

TEST_P(TopKTest, ARowWithANaNSaysSoAndItsNeighboursDoNot) {
  for (uint32_t width : {30u, 9000u}) {
    for (uint32_t at : {0u, 29u, width - 1}) {
      std::vector<float> x = RandomFloats(size_t{3} * width, 6);
      x[width + at] = std::numeric_limits<float>::quiet_NaN();
      const uint32_t k = 4;
      const std::vector<TopEntry> got = Run(x, width, k);
      for (uint32_t i = 0; i < k; ++i) {
        EXPECT_GE(got[i].id, 0);
        EXPECT_EQ(got[k + i].id, kNotANumber) << width << " at " << at;
        EXPECT_GE(got[2 * k + i].id, 0);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, TopKTest, ::testing::ValuesIn(AllTiers()), BackendName);

}  // namespace
}  // namespace tandem
