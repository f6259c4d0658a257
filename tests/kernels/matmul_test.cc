// Products of every back end against a double-precision one on the dequantised weights (f32
// activations) or against the definition of int8 (kernels/int8_block.h).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/kernels/kernel_test_support.h"

namespace tandem {
namespace {

struct Shape {
  uint64_t rows, cols, n;
};
// Odd row counts around the panel's width, K from one block to 128, n around the token tiles.
constexpr Shape kShapes[] = {{1, 32, 1},   {3, 64, 2},    {17, 96, 5},   {65, 576, 1},
                             {8, 4096, 3}, {65, 160, 33}, {64, 576, 17}, {130, 1536, 4}};

class MatMulTest : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    bench_ = MakeBench(GetParam());
    if (!bench_.ops) GTEST_SKIP() << bench_.missing;
  }
  Ops& ops() { return *bench_.ops; }
  Bench bench_;
};

// With int8, block sums are exact and only their f32 sum rounds. A Q4_1 block's two parts may each
// be three times the largest weight.
double Int8Tolerance(const float* w, const float* x, uint64_t cols) {
  double top = 0.0, xx = 0.0;
  for (uint64_t c = 0; c < cols; ++c) {
    top = std::max(top, std::abs(double{w[c]}));
    xx += double{x[c]} * x[c];
  }
  const double blocks = static_cast<double>(cols) / 32.0;
  return 8.0 * kUnitF32 * std::sqrt(blocks) * 3.0 * top *
             std::sqrt(static_cast<double>(cols) * xx) +
         1e-30;
}

bool MeetsInt8(ActivationType activations, DType type) {
  return FormFor(activations, type) == RowForm::kInt8;
}

// Products of int8 in two parts, which f32 activations have not.
class TwoPartsTest : public MatMulTest {};

// The activations that weights of `type` meet, where they are not int8.
std::vector<float> AsMet(ActivationType activations, DType type, std::vector<float> x) {
  if (FormFor(activations, type) == RowForm::kBf16) {
    for (float& value : x) value = BF16ToF32(F32ToBF16(value));
  }
  return x;
}

// Every type and shape against the oracle's int8 product, or the dequantised one.
void ExpectMatchesTheReference(Ops& ops, ActivationType activations, Int8Parts parts) {
  const std::unique_ptr<Ops> ref = MakeRefOps(activations);
  for (DType type : kAllDTypes) {
    if (!HasParts(activations, type, parts)) continue;
    for (Shape shape : kShapes) {
      shape.cols = WholeBlocks(type, shape.cols);
      SCOPED_TRACE(::testing::Message() << ToString(type) << " rows " << shape.rows << " cols "
                                        << shape.cols << " n " << shape.n);
      const TestTensor w = MakeTensor(type, shape.rows, shape.cols, 11);
      const std::vector<float> x = RandomFloats(shape.n * shape.cols, 12);
      const Packed packed = PackSlice(ops, w, Whole(w.view));
      const std::vector<float> got = Product(ops, packed.matrix, Whole(w.view), x, shape.n, parts);

      std::vector<float> want(shape.n * shape.rows);
      if (MeetsInt8(activations, type)) {
        const Packed plain = PackSlice(*ref, w, Whole(w.view));
        want = Product(*ref, plain.matrix, Whole(w.view), x, shape.n, parts);
      } else {
        want = DoubleProduct(w, AsMet(activations, type, x), shape.n);
      }
      EXPECT_TRUE(Near(got, want, shape.rows, [&](size_t i) {
        const float* row = w.values.data() + i % shape.rows * shape.cols;
        const float* token = x.data() + i / shape.rows * shape.cols;
        return MeetsInt8(activations, type) ? Int8Tolerance(row, token, shape.cols)
                                            : F32Tolerance(row, token, shape.cols);
      }));
    }
  }
}

TEST_P(MatMulTest, MatchesTheReference) {
  ExpectMatchesTheReference(ops(), GetParam().activations, Int8Parts::kOne);
}

TEST_P(TwoPartsTest, MatchesTheReference) {
  ExpectMatchesTheReference(ops(), GetParam().activations, Int8Parts::kTwo);
}

// BF16 may be multiplied in pairs of columns: a last column without a partner, in a whole matrix
// and in slices that end before it.
TEST_P(MatMulTest, MultipliesAnOddNumberOfBf16Columns) {
  for (uint64_t cols : {1, 7, 33}) {
    const uint64_t rows = 21, n = 3;
    const TestTensor w = MakeTensor(DType::kBF16, rows, cols, 81);
    const std::vector<float> x = RandomFloats(n * cols, 82);
    const Packed packed = PackSlice(ops(), w, Whole(w.view));
    const std::vector<float> got = Product(ops(), packed.matrix, Whole(w.view), x, n);
    const std::vector<float> met = AsMet(GetParam().activations, DType::kBF16, x);
    EXPECT_TRUE(Near(got, DoubleProduct(w, met, n), rows,
                     [&](size_t i) {
                       return F32Tolerance(w.values.data() + i % rows * cols,
                                           x.data() + i / rows * cols, cols);
                     }))
        << cols << " columns";
  }
  const TestTensor w = MakeTensor(DType::kBF16, 21, 33, 83);
  const Packed packed = PackSlice(ops(), w, Whole(w.view));
  const std::vector<float> x = RandomFloats(5, 84);
  const MatrixSlice slice{0, 21, 26, 31};
  const Packed alone = PackSlice(ops(), w, slice);
  EXPECT_TRUE(Same(Product(ops(), packed.matrix, slice, x, 1),
                   Product(ops(), alone.matrix, slice, x, 1), 21));
}

// One activation of at most one, as int8, is off by at most half a step of 1/127; what a second
// part leaves of that is half a step again, of 1/127 of it. The rest is f32's.
void ExpectWithinHalfAStepOfF32(Ops& ops, Int8Parts parts) {
  for (DType type : kAllDTypes) {
    if (!Traits(type).quantized) continue;
    const double step = parts == Int8Parts::kOne ? 0.5001 / 127.0 : 0.25005 / (127.0 * 127.0);
    const uint64_t rows = 40, cols = WholeBlocks(type, 576);
    const TestTensor w = MakeTensor(type, rows, cols, 21);
    const std::vector<float> x = RandomFloats(cols, 22);
    const Packed packed = PackSlice(ops, w, Whole(w.view));
    const std::vector<float> got = Product(ops, packed.matrix, Whole(w.view), x, 1, parts);
    for (uint64_t r = 0; r < rows; ++r) {
      double sum = 0.0, bound = parts == Int8Parts::kOne ? 1e-4 : 2e-5;
      for (uint64_t c = 0; c < cols; ++c) {
        sum += double{w.values[r * cols + c]} * x[c];
        bound += std::abs(w.values[r * cols + c]) * step;
      }
      EXPECT_NEAR(got[r], sum, bound) << ToString(type) << " row " << r;
    }
  }
}

TEST_P(MatMulTest, Int8StaysWithinHalfAStepOfF32) {
  ExpectWithinHalfAStepOfF32(ops(), Int8Parts::kOne);
}

TEST_P(TwoPartsTest, TheSecondTakesWhatTheFirstLeftOver) {
  ExpectWithinHalfAStepOfF32(ops(), Int8Parts::kTwo);
}

void PutF16(std::byte* at, float value) {
  const uint16_t bits = F32ToF16(value);
  std::memcpy(at, &bits, sizeof(bits));
}

// Scales of one, minima of one and activations whose scale is one: every sum is an integer below
// 2^24, so the product is exact, extreme weights and activations included.
TEST_P(MatMulTest, IsExactOnIntegers) {
  const uint64_t rows = 19, cols = 128, n = 7;
  for (DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1}) {
    const uint32_t block_bytes = Traits(type).block_bytes;
    TestTensor w = MakeTensor(type, rows, cols, 31);
    const std::vector<float> noise = RandomFloats(rows * cols * 2, 32);
    for (uint64_t b = 0; b < rows * cols / 32; ++b) {
      std::byte* block = w.bytes.data() + b * block_bytes;
      const uint32_t header = type == DType::kQ4_1 ? 4 : 2;
      PutF16(block, 1.0f);
      if (type == DType::kQ4_1) PutF16(block + 2, b % 3 == 0 ? -2.0f : 1.0f);
      for (uint32_t i = header; i < block_bytes; ++i) {
        const float r = noise[b * 32 + i];
        // Rows 0 and 1 hold the extremes that saturating arithmetic gets wrong.
        uint8_t byte = static_cast<uint8_t>(static_cast<int>(r * 127.0f));
        if (b < cols / 32) byte = type == DType::kQ8_0 ? 0x80 : 0xff;
        if (b / (cols / 32) == 1) byte = type == DType::kQ8_0 ? 0x7f : 0x00;
        block[i] = std::byte{byte};
      }
    }
    for (uint64_t r = 0; r < rows; ++r) {
      DequantizeRow(type, w.view.row(r), w.values.data() + r * cols, cols);
    }
    std::vector<float> x(n * cols);
    for (uint64_t i = 0; i < x.size(); ++i) {
      x[i] = std::round(noise[i] * 127.0f);
      if (i / cols == 0) x[i] = 127.0f;
      if (i / cols == 1) x[i] = -127.0f;
      if (i % 32 == 5) x[i] = i % 64 == 5 ? 127.0f : -127.0f;
    }
    const Packed packed = PackSlice(ops(), w, Whole(w.view));
    const std::vector<float> got = Product(ops(), packed.matrix, Whole(w.view), x, n);
    for (uint64_t t = 0; t < n; ++t) {
      for (uint64_t r = 0; r < rows; ++r) {
        double sum = 0.0;
        for (uint64_t c = 0; c < cols; ++c) sum += double{w.values[r * cols + c]} * x[t * cols + c];
        ASSERT_EQ(got[t * rows + r], static_cast<float>(sum))
            << ToString(type) << " token " << t << " row " << r;
      }
    }
  }
}

TEST_P(MatMulTest, ComputesSlicesOfPackedSlices) {
  for (DType type : kAllDTypes) {
    const uint64_t cols = 256 * Stretch(type);
    const TestTensor w = MakeTensor(type, 70, cols, 41);
    const MatrixSlice held{5, 66, cols / 4, cols};
    const Packed packed = PackSlice(ops(), w, held);
    for (MatrixSlice slice :
         {MatrixSlice{5, 66, 64, 256}, MatrixSlice{5, 6, 64, 256}, MatrixSlice{9, 31, 96, 192},
          MatrixSlice{23, 66, 224, 256}, MatrixSlice{13, 21, 64, 96}}) {
      slice.col_begin *= Stretch(type);
      slice.col_end *= Stretch(type);
      SCOPED_TRACE(::testing::Message()
                   << ToString(type) << " rows " << slice.row_begin << ".." << slice.row_end
                   << " cols " << slice.col_begin << ".." << slice.col_end);
      const uint64_t n = 3;
      const std::vector<float> x = RandomFloats(n * slice.cols(), 42);
      const std::vector<float> got = Product(ops(), packed.matrix, slice, x, n);
      // Packing exactly the slice gives the same sums.
      const Packed alone = PackSlice(ops(), w, slice);
      const std::vector<float> want = Product(ops(), alone.matrix, slice, x, n);
      EXPECT_TRUE(Same(got, want, slice.rows()));
      for (uint64_t r = 0; r < slice.rows(); ++r) {
        double sum = 0.0, size = 0.0;
        for (uint64_t c = 0; c < slice.cols(); ++c) {
          const double v = w.values[(slice.row_begin + r) * cols + slice.col_begin + c];
          sum += v * x[c];
          size += std::abs(v);
        }
        EXPECT_NEAR(got[r], sum, size / 127.0) << "row " << r;
      }
    }
  }
}

TEST_P(MatMulTest, RunsManyTasksAndLeavesTheGapsAlone) {
  const uint64_t n = 4, cols = 96;
  const TestTensor q = MakeTensor(DType::kQ4_1, 40, cols, 51);
  const TestTensor k = MakeTensor(DType::kQ8_0, 9, cols, 52);
  const TestTensor v = MakeTensor(DType::kF16, 9, cols, 53);
  const Packed pq = PackSlice(ops(), q, Whole(q.view));
  const Packed pk = PackSlice(ops(), k, Whole(k.view));
  const Packed pv = PackSlice(ops(), v, Whole(v.view));
  const std::vector<float> x = RandomFloats(n * cols, 54);
  const uint64_t stride = 70;  // q, k, two gaps, v, gap
  std::vector<float> y = Poison(n * stride);
  const Prepared prepared = Prepare(ops(), x, n, cols, DType::kQ4_1);
  const MatMulTask tasks[] = {
      {&pq.matrix, Whole(q.view), y.data(), stride},
      {&pk.matrix, Whole(k.view), y.data() + 40, stride},
      {&pv.matrix, {2, 2, 0, cols}, y.data() + 49, stride},  // no rows: writes nothing
      {&pv.matrix, Whole(v.view), y.data() + 51, stride},
  };
  ops().MatMul(prepared.rows, tasks);
  const std::vector<float> yq = Product(ops(), pq.matrix, Whole(q.view), x, n);
  const std::vector<float> yk = Product(ops(), pk.matrix, Whole(k.view), x, n);
  const std::vector<float> yv = Product(ops(), pv.matrix, Whole(v.view), x, n);
  for (uint64_t t = 0; t < n; ++t) {
    const float* row = y.data() + t * stride;
    for (uint64_t i = 0; i < stride; ++i) {
      if (i < 40) {
        EXPECT_EQ(row[i], yq[t * 40 + i]);
      } else if (i < 49) {
        EXPECT_EQ(row[i], yk[t * 9 + i - 40]);
      } else if (i >= 51 && i < 60) {
        EXPECT_EQ(row[i], yv[t * 9 + i - 51]);
      } else {
        EXPECT_TRUE(std::isnan(row[i])) << "gap " << i << " was written";
      }
    }
  }
}

TEST_P(MatMulTest, PackedFormTakesTheStoredBytesAndMayBeMoved) {
  for (DType type : kAllDTypes) {
    const uint64_t cols = WholeBlocks(type, 128);
    const TestTensor w = MakeTensor(type, 48, cols, 61);
    const MatrixSlice slice = Whole(w.view);
    EXPECT_EQ(ops().PackedBytes(type, slice), w.view.bytes()) << ToString(type);
    const Packed packed = PackSlice(ops(), w, slice);
    const std::vector<float> x = RandomFloats(cols, 62);
    const std::vector<float> want = Product(ops(), packed.matrix, slice, x, 1);
    Packed moved = packed;
    moved.matrix.data = moved.bytes.data();
    EXPECT_TRUE(Same(Product(ops(), moved.matrix, slice, x, 1), want, 48));
  }
}

TEST_P(MatMulTest, ShowsNanAndInfinityAndKeepsZero) {
  const uint64_t rows = 9;
  for (DType type : kAllDTypes) {
    const uint64_t cols = WholeBlocks(type, 64);
    const TestTensor w = MakeTensor(type, rows, cols, 71);
    const Packed packed = PackSlice(ops(), w, Whole(w.view));
    for (float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      std::vector<float> x = RandomFloats(3 * cols, 72);
      x[cols + 40] = bad;
      const std::vector<float> y = Product(ops(), packed.matrix, Whole(w.view), x, 3);
      for (uint64_t r = 0; r < rows; ++r) {
        EXPECT_TRUE(std::isfinite(y[r]) && std::isfinite(y[2 * rows + r])) << ToString(type);
        EXPECT_FALSE(std::isfinite(y[rows + r])) << ToString(type) << " row " << r;
      }
    }
    const std::vector<float> zero(cols, 0.0f);
    for (float value : Product(ops(), packed.matrix, Whole(w.view), zero, 1)) {
      EXPECT_EQ(value, 0.0f);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, MatMulTest, ::testing::ValuesIn(AllBackends()), BackendName);
INSTANTIATE_TEST_SUITE_P(Backends, TwoPartsTest, ::testing::ValuesIn(Int8Backends()), BackendName);

}  // namespace
}  // namespace tandem
