// Embedding, norm and elementwise ops of every back end.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/kernels/kernel_test_support.h"

namespace tandem {
namespace {

constexpr double kUnit = 0x1p-24;

class RowsTest : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    bench_ = MakeBench(GetParam());
    if (!bench_.ops) GTEST_SKIP() << bench_.missing;
  }
  Ops& ops() { return *bench_.ops; }
  Bench bench_;
};

TEST_P(RowsTest, EmbedsItsRowsAndZeroesTheOthers) {
  for (DType type : kAllDTypes) {
    const uint64_t hidden = std::max<uint64_t>(96, Traits(type).block_elems);
    const TestTensor table = MakeTensor(type, 50, hidden, 1);
    const Packed packed = PackSlice(ops(), table, {10, 45, 0, hidden});
    const std::vector<int32_t> ids = {10, 44, 11, 9, 45, 30, -1, 49, 30, 17};
    std::vector<float> out = Poison(ids.size() * hidden);
    ops().Embed(packed.matrix, {11, 44, 0, hidden}, ids, out.data());
    for (size_t t = 0; t < ids.size(); ++t) {
      const bool held = ids[t] >= 11 && ids[t] < 44;
      for (uint64_t i = 0; i < hidden; ++i) {
        const float want = held ? table.values[static_cast<uint64_t>(ids[t]) * hidden + i] : 0.0f;
        ASSERT_EQ(out[t * hidden + i], want) << ToString(type) << " id " << ids[t] << " at " << i;
      }
    }
  }
}

TEST_P(RowsTest, NormsEachRow) {
  for (uint64_t hidden : {8, 33, 64, 100, 576, 4096}) {
    const uint64_t n = 5;
    const std::vector<float> x = RandomFloats(n * hidden, 2, 3.0f);
    const std::vector<float> w = RandomFloats(hidden, 3);
    std::vector<float> got = Poison(n * hidden), want(n * hidden);
    ops().RmsNorm(x.data(), w.data(), 1e-5f, n, hidden, got.data());
    for (uint64_t t = 0; t < n; ++t) {
      double squares = 0.0;
      for (uint64_t i = 0; i < hidden; ++i)
        squares += double{x[t * hidden + i]} * x[t * hidden + i];
      const double rms = std::sqrt(squares / static_cast<double>(hidden) + 1e-5f);
      for (uint64_t i = 0; i < hidden; ++i) {
        want[t * hidden + i] = static_cast<float>(x[t * hidden + i] / rms * w[i]);
      }
    }
    // The sum of squares errs by at most hidden/8 + 8 roundings, the rest by a few.
    const double units = static_cast<double>(hidden) / 8.0 + 16.0;
    EXPECT_TRUE(Near(got, want, hidden, [&](size_t i) {
      return units * kUnit * std::abs(want[i]) + 1e-30;
    })) << hidden;
  }
}

TEST_P(RowsTest, NormsInPlace) {
  for (uint64_t hidden : {12, 64, 100}) {
    std::vector<float> x = RandomFloats(7 * hidden, 8, 3.0f);
    const std::vector<float> w = RandomFloats(hidden, 9);
    std::vector<float> apart = Poison(7 * hidden);
    ops().RmsNorm(x.data(), w.data(), 1e-6f, 7, hidden, apart.data());
    ops().RmsNorm(x.data(), w.data(), 1e-6f, 7, hidden, x.data());
    EXPECT_TRUE(Same(x, apart, hidden));
  }
}

// Rows of a warp and of a block, of whole quads and not.
constexpr uint64_t kNormWidths[] = {8, 33, 100, 576, 514, 4096, 5000};

TEST_P(RowsTest, AddNormIsAddAndThenNormToTheBit) {
  for (uint64_t hidden : kNormWidths) {
    const uint64_t n = 5, size = n * hidden;
    const std::vector<float> x = RandomFloats(size, 20, 3.0f), y = RandomFloats(size, 21);
    const std::vector<float> w = RandomFloats(hidden, 22);
    std::vector<float> want_sum = Poison(size), want_norm = Poison(size);
    ops().Add(x.data(), y.data(), size, want_sum.data());
    ops().RmsNorm(want_sum.data(), w.data(), 1e-5f, n, hidden, want_norm.data());
    std::vector<float> sum = Poison(size), norm = Poison(size);
    ops().AddNorm(x.data(), y.data(), w.data(), 1e-5f, n, hidden, sum.data(), norm.data());
    EXPECT_TRUE(Same(sum, want_sum, hidden)) << hidden;
    EXPECT_TRUE(Same(norm, want_norm, hidden)) << hidden;
    // In place of either operand.
    std::vector<float> a = x, b = y;
    ops().AddNorm(a.data(), b.data(), w.data(), 1e-5f, n, hidden, a.data(), b.data());
    EXPECT_TRUE(Same(a, want_sum, hidden)) << hidden;
    EXPECT_TRUE(Same(b, want_norm, hidden)) << hidden;
    a = x;
    b = y;
    ops().AddNorm(a.data(), b.data(), w.data(), 1e-5f, n, hidden, b.data(), a.data());
    EXPECT_TRUE(Same(b, want_sum, hidden)) << hidden;
    EXPECT_TRUE(Same(a, want_norm, hidden)) << hidden;
  }
}

TEST_P(RowsTest, PrepareSwiGluIsSwiGluAndThenPrepareToTheBit) {
  const uint64_t n = 5, rows = 17;
  for (DType type : {DType::kQ4_1, DType::kBF16, DType::kF16}) {
    for (Int8Parts parts : {Int8Parts::kOne, Int8Parts::kTwo}) {
      if (!HasParts(GetParam().activations, type, parts)) continue;
      for (uint64_t cols : {32, 160, 1536}) {
        const TestTensor w = MakeTensor(type, rows, cols, 30);
        const Packed packed = PackSlice(ops(), w, Whole(w.view));
        const std::vector<float> gate = RandomFloats(n * cols, 31, 4.0f);
        const std::vector<float> up = RandomFloats(n * cols, 32);
        const auto product = [&](bool fused) {
          std::vector<float> x = gate, y = Poison(n * rows);
          std::vector<std::byte> scratch(ops().PreparedBytes(n, cols) + 64);
          if (!fused) ops().SwiGlu(x.data(), up.data(), n * cols, x.data());
          const PreparedRows prepared =
              fused ? ops().PrepareSwiGlu(x.data(), up.data(), n, cols, type, parts, scratch.data())
                    : ops().PrepareRows(x.data(), n, cols, type, parts, scratch.data());
          const MatMulTask task{&packed.matrix, Whole(w.view), y.data(), rows};
          ops().MatMul(prepared, {&task, 1});
          ops().Finish();
          return y;
        };
        EXPECT_TRUE(Same(product(true), product(false), rows)) << ToString(type) << " " << cols;
      }
    }
  }
}

TEST_P(RowsTest, AddsABiasToEachRow) {
  for (uint64_t width : {1, 20, 64, 5000}) {
    const uint64_t n = 9;
    const std::vector<float> x = RandomFloats(n * width, 10), bias = RandomFloats(width, 11);
    std::vector<float> y = x;
    ops().AddBias(bias.data(), n, width, y.data());
    for (size_t i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], x[i] + bias[i % width]);
  }
}

TEST_P(RowsTest, NormOfZerosIsZero) {
  const std::vector<float> x(64, 0.0f), w(64, 2.0f);
  std::vector<float> y = Poison(64);
  ops().RmsNorm(x.data(), w.data(), 1e-5f, 1, 64, y.data());
  for (float value : y) EXPECT_EQ(value, 0.0f);
}

TEST_P(RowsTest, AddsExactlyAndInPlace) {
  for (size_t n : {1, 7, 64, 1000, 70000}) {
    std::vector<float> x = RandomFloats(n, 4);
    const std::vector<float> y = RandomFloats(n, 5);
    std::vector<float> out = Poison(n);
    ops().Add(x.data(), y.data(), n, out.data());
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(out[i], x[i] + y[i]);
    ops().Add(x.data(), y.data(), n, x.data());
    EXPECT_TRUE(Same(x, out, n));
  }
}

TEST_P(RowsTest, SwiGluFollowsItsFormulaOverTheWholeRange) {
  for (size_t n : {1, 9, 64, 1001, 50000}) {
    const std::vector<float> gate = RandomFloats(n, 6, n == 1001 ? 200.0f : 8.0f);
    const std::vector<float> up = RandomFloats(n, 7, 2.0f);
    std::vector<float> out = Poison(n), want(n);
    ops().SwiGlu(gate.data(), up.data(), n, out.data());
    for (size_t i = 0; i < n; ++i) {
      want[i] = static_cast<float>(gate[i] / (1.0 + std::exp(-double{gate[i]})) * up[i]);
    }
    EXPECT_TRUE(
        Near(out, want, n, [&](size_t i) { return 16.0 * kUnit * std::abs(want[i]) + 1e-30; }));
    std::vector<float> in_place = gate;
    ops().SwiGlu(in_place.data(), up.data(), n, in_place.data());
    EXPECT_TRUE(Same(in_place, out, n));
  }
}

TEST_P(RowsTest, ZeroesNeitherLessNorMore) {
  std::vector<float> x = Poison(130);
  ops().Zero(x.data() + 1, 128);
  ops().Finish();
  EXPECT_TRUE(std::isnan(x[0]));
  EXPECT_TRUE(std::isnan(x[129]));
  EXPECT_TRUE(std::all_of(x.begin() + 1, x.end() - 1, [](float value) { return value == 0.0f; }));
}

TEST_P(RowsTest, CopiesRunsOfRowsAndLeavesTheGaps) {
  for (uint64_t width : {1, 5, 64, 1000}) {
    const uint64_t rows = 4, from_stride = width + 3, to_stride = width + 7;
    const std::vector<float> from = RandomFloats(rows * from_stride, 12);
    std::vector<float> to = Poison(rows * to_stride);
    ops().CopyRows(from.data(), from_stride, to.data(), to_stride, width, rows);
    ops().Finish();
    for (uint64_t row = 0; row < rows; ++row) {
      for (uint64_t i = 0; i < to_stride; ++i) {
        const float got = to[row * to_stride + i];
        if (i < width) {
          ASSERT_EQ(got, from[row * from_stride + i]) << "row " << row << " column " << i;
        } else {
          ASSERT_TRUE(std::isnan(got)) << "row " << row << " column " << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, RowsTest, ::testing::ValuesIn(AllTiers()), BackendName);

}  // namespace
}  // namespace tandem
