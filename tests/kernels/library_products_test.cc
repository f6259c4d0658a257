// Products of many rows by a library: cuBLASLt on a GPU, loops where one is emulated. Values
// against double-precision ones on what is multiplied, BF16 on both sides; and to the bit what
// kernels/README.md promises of rows that share a call.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/base/error.h"
#include "tests/kernels/kernel_test_support.h"

namespace tandem {
namespace {

constexpr uint32_t kRows = 32;  // of a call
// Tiles of few panels, and ones that hold no row of a matrix whole.
constexpr LibraryRoom kSmall{.rows = kRows,
                             .weight_bytes = 64 << 10,
                             .near_bytes = 16 << 10,
                             .output_bytes = 16 << 10,
                             .workspace_bytes = 4 << 20};
constexpr LibraryRoom kNarrow{.rows = kRows,
                              .weight_bytes = 16 << 10,
                              .near_bytes = 16 << 10,
                              .output_bytes = 4 << 10,
                              .workspace_bytes = 4 << 20};

float Rounded(float value) { return BF16ToF32(F32ToBF16(value)); }

// The same tensor as the library is given it.
TestTensor RoundedTensor(DType type, uint64_t rows, uint64_t cols, uint64_t seed) {
  TestTensor w = MakeTensor(type, rows, cols, seed);
  for (float& value : w.values) value = Rounded(value);
  return w;
}
std::vector<float> RoundedRows(std::vector<float> x) {
  for (float& value : x) value = Rounded(value);
  return x;
}

// Part of a tensor as one of its own.
TestTensor SliceOf(const TestTensor& w, const MatrixSlice& slice) {
  TestTensor part;
  part.view = TensorView{nullptr, w.view.type, slice.rows(), slice.cols()};
  for (uint64_t r = slice.row_begin; r < slice.row_end; ++r) {
    const auto row = w.values.begin() + static_cast<ptrdiff_t>(r * w.view.cols);
    part.values.insert(part.values.end(), row + static_cast<ptrdiff_t>(slice.col_begin),
                       row + static_cast<ptrdiff_t>(slice.col_end));
  }
  return part;
}

::testing::AssertionResult NearDouble(const std::vector<float>& got, const TestTensor& w,
                                      const std::vector<float>& x, uint64_t n) {
  const uint64_t rows = w.view.rows, cols = w.view.cols;
  return Near(got, DoubleProduct(w, x, n), rows, [&](size_t i) {
    return F32Tolerance(w.values.data() + i % rows * cols, x.data() + i / rows * cols, cols);
  });
}

class LibraryProductsTest : public ::testing::TestWithParam<const LibraryRoom*> {
 protected:
  void SetUp() override {
    bench_ = MakeBench({.tier = Tiers()[0], .library = GetParam()});
    if (!bench_.ops) GTEST_SKIP() << bench_.missing;
  }
  Ops& ops() { return *bench_.ops; }
  Bench bench_;
};

TEST_P(LibraryProductsTest, MatchesADoublePrecisionProduct) {
  struct Shape {
    uint64_t rows, cols, n;
  };
  for (DType type : kAllDTypes) {
    for (Shape shape :
         {Shape{17, 96, 16}, {65, 160, 70}, {130, 1536, 33}, {64, 576, 32}, {1, 32, 17}}) {
      shape.cols = WholeBlocks(type, shape.cols);
      SCOPED_TRACE(::testing::Message() << ToString(type) << " rows " << shape.rows << " cols "
                                        << shape.cols << " n " << shape.n);
      const TestTensor w = RoundedTensor(type, shape.rows, shape.cols, 11);
      const std::vector<float> x = RandomFloats(shape.n * shape.cols, 12);
      const Packed packed = PackSlice(ops(), w, Whole(w.view));
      const std::vector<float> got = Product(ops(), packed.matrix, Whole(w.view), x, shape.n);
      EXPECT_TRUE(NearDouble(got, w, RoundedRows(x), shape.n));
    }
  }
}

// Each factor is off by at most 2^-9 of itself.
TEST_P(LibraryProductsTest, StaysWithinTheRoundingOfBothSides) {
  const std::unique_ptr<Ops> ref = MakeRefOps(ActivationType::kF32);
  for (DType type : kAllDTypes) {
    const uint64_t rows = 40, cols = WholeBlocks(type, 416), n = 20;
    const TestTensor w = MakeTensor(type, rows, cols, 13);
    const std::vector<float> x = RandomFloats(n * cols, 14);
    const Packed packed = PackSlice(ops(), w, Whole(w.view));
    const Packed plain = PackSlice(*ref, w, Whole(w.view));
    const std::vector<float> got = Product(ops(), packed.matrix, Whole(w.view), x, n);
    const std::vector<float> want = Product(*ref, plain.matrix, Whole(w.view), x, n);
    EXPECT_TRUE(Near(got, want, rows, [&](size_t i) {
      const float* row = w.values.data() + i % rows * cols;
      const float* token = x.data() + i / rows * cols;
      double size = 0.0;
      for (uint64_t c = 0; c < cols; ++c) size += std::abs(double{row[c]} * token[c]);
      return size * (0x1p-8 + 0x1p-18) + F32Tolerance(row, token, cols);
    })) << ToString(type);
  }
}

TEST_P(LibraryProductsTest, RowsInACallDoNotChangeABit) {
  for (DType type : kAllDTypes) {
    const uint64_t rows = 67, cols = WholeBlocks(type, 416), most = 100;
    const TestTensor w = MakeTensor(type, rows, cols, 15);
    const std::vector<float> all = RandomFloats(most * cols, 16);
    const Packed packed = PackSlice(ops(), w, Whole(w.view));
    const std::vector<float> want = Product(ops(), packed.matrix, Whole(w.view), all, most);
    for (uint64_t n : {16, 17, 31, 32, 33, 64, 65}) {
      // The first rows, and the last ones, which then stand elsewhere in their call.
      for (uint64_t first : {uint64_t{0}, most - n}) {
        const std::vector<float> x(all.begin() + static_cast<ptrdiff_t>(first * cols),
                                   all.begin() + static_cast<ptrdiff_t>((first + n) * cols));
        const std::vector<float> got = Product(ops(), packed.matrix, Whole(w.view), x, n);
        EXPECT_TRUE(Same(got,
                         {want.begin() + static_cast<ptrdiff_t>(first * rows),
                          want.begin() + static_cast<ptrdiff_t>((first + n) * rows)},
                         rows))
            << ToString(type) << " n " << n << " from " << first;
      }
    }
  }
}

// Results that may be written where they belong, and ones that may not: strides and places that the
// library does not take.
TEST_P(LibraryProductsTest, WhereTheResultGoesDoesNotChangeABit) {
  struct alignas(64) Line {
    float values[16];
  };
  const uint64_t rows = 96, cols = 1024, n = 75;
  const TestTensor w = MakeTensor(DType::kQ8_0, rows, cols, 17);
  const std::vector<float> x = RandomFloats(n * cols, 18);
  const Packed packed = PackSlice(ops(), w, Whole(w.view));
  const Prepared prepared = Prepare(ops(), x, n, cols, DType::kQ8_0);
  std::vector<float> want;
  for (const auto& [offset, stride] :
       {std::pair<uint64_t, uint64_t>{0, 96}, {0, 112}, {16, 128}, {0, 97}, {3, 112}, {16, 114}}) {
    std::vector<Line> memory((offset + n * stride) / 16 + 1);
    float* all = memory[0].values;
    const size_t size = memory.size() * 16;
    const float poison = std::numeric_limits<float>::quiet_NaN();
    std::fill(all, all + size, poison);
    const MatMulTask task{&packed.matrix, Whole(w.view), all + offset, stride};
    ops().MatMul(prepared.rows, {&task, 1});
    std::vector<float> got;
    for (size_t i = 0; i < size; ++i) {
      const size_t at = i - offset;
      if (i >= offset && at < n * stride && at % stride < rows) {
        got.push_back(all[i]);
      } else {
        EXPECT_TRUE(std::isnan(all[i])) << "written beside the result: " << i;
      }
    }
    if (want.empty()) want = got;
    EXPECT_TRUE(Same(got, want, rows)) << "from " << offset << ", stride " << stride;
  }
  EXPECT_TRUE(NearDouble(want, RoundedTensor(DType::kQ8_0, rows, cols, 17), RoundedRows(x), n));
}

// Shards by rows (outputs) and by columns, of a packed part of the matrix.
TEST_P(LibraryProductsTest, ComputesSlicesOfPackedSlices) {
  for (DType type : kAllDTypes) {
    const uint64_t stretch = Stretch(type), cols = 256 * stretch, n = 35;
    const TestTensor w = RoundedTensor(type, 90, cols, 19);
    const Packed packed = PackSlice(ops(), w, {5, 86, cols / 4, cols});
    for (MatrixSlice slice :
         {MatrixSlice{5, 86, 64, 256}, MatrixSlice{5, 6, 64, 256}, MatrixSlice{9, 31, 96, 192},
          MatrixSlice{21, 53, 224, 256}, MatrixSlice{37, 86, 64, 96}}) {
      slice.col_begin *= stretch;
      slice.col_end *= stretch;
      const std::vector<float> x = RandomFloats(n * slice.cols(), 20);
      const std::vector<float> got = Product(ops(), packed.matrix, slice, x, n);
      EXPECT_TRUE(NearDouble(got, SliceOf(w, slice), RoundedRows(x), n))
          << ToString(type) << " rows " << slice.row_begin << ".." << slice.row_end << " cols "
          << slice.col_begin << ".." << slice.col_end;
    }
  }
}

TEST_P(LibraryProductsTest, RunsTasksOfManyTypesAndLeavesTheGapsAlone) {
  const uint64_t n = 40, cols = 256, stride = 80;
  std::vector<TestTensor> tensors;
  for (DType type : {DType::kQ4_K, DType::kBF16, DType::kF32}) {
    tensors.push_back(RoundedTensor(type, 20, cols, 21));
  }
  std::vector<Packed> packed;
  for (const TestTensor& w : tensors) packed.push_back(PackSlice(ops(), w, Whole(w.view)));
  const std::vector<float> x = RandomFloats(n * cols, 22);
  std::vector<float> y = Poison(n * stride);
  const Prepared prepared = Prepare(ops(), x, n, cols, DType::kQ4_K);
  const MatMulTask tasks[] = {
      {&packed[0].matrix, Whole(tensors[0].view), y.data(), stride},
      {&packed[1].matrix, {2, 2, 0, cols}, y.data() + 20, stride},  // no rows: writes nothing
      {&packed[1].matrix, Whole(tensors[1].view), y.data() + 25, stride},
      {&packed[2].matrix, Whole(tensors[2].view), y.data() + 50, stride},
  };
  ops().MatMul(prepared.rows, tasks);
  for (size_t i = 0; i < 3; ++i) {
    std::vector<float> got;
    for (uint64_t t = 0; t < n; ++t) {
      const auto row = y.begin() + static_cast<ptrdiff_t>(t * stride + 25 * i);
      got.insert(got.end(), row, row + 20);
      for (uint64_t gap = 20; gap < 25; ++gap) {
        EXPECT_TRUE(std::isnan(row[static_cast<ptrdiff_t>(gap)])) << "a gap was written";
      }
    }
    EXPECT_TRUE(NearDouble(got, tensors[i], RoundedRows(x), n)) << i;
  }
}

TEST_P(LibraryProductsTest, FewRowsHaveTheBitsOfOwnKernels) {
  const Bench own = MakeBench({Tiers()[0], ActivationType::kInt8});
  for (DType type : {DType::kQ4_0, DType::kBF16, DType::kF16}) {
    const uint64_t rows = 30, cols = 160, n = kRows / 2 - 1;
    const TestTensor w = MakeTensor(type, rows, cols, 23);
    const std::vector<float> x = RandomFloats(n * cols, 24);
    const Packed packed = PackSlice(ops(), w, Whole(w.view));
    EXPECT_TRUE(Same(Product(ops(), packed.matrix, Whole(w.view), x, n, Int8Parts::kTwo),
                     Product(*own.ops, packed.matrix, Whole(w.view), x, n, Int8Parts::kTwo), rows))
        << ToString(type);
  }
}

TEST_P(LibraryProductsTest, GatedRowsHaveTheBitsOfTwoSteps) {
  const uint64_t rows = 30, cols = 160, n = 40;
  for (DType type : {DType::kQ4_0, DType::kBF16, DType::kF32}) {
    const TestTensor w = MakeTensor(type, rows, cols, 25);
    const Packed packed = PackSlice(ops(), w, Whole(w.view));
    std::vector<float> gate = RandomFloats(n * cols, 26, 4.0f);
    const std::vector<float> up = RandomFloats(n * cols, 27);
    std::vector<float> glu = Poison(n * cols);
    ops().SwiGlu(gate.data(), up.data(), n * cols, glu.data());
    const std::vector<float> want =
        Product(ops(), packed.matrix, Whole(w.view), glu, n, Int8Parts::kTwo);
    std::vector<std::byte> scratch(ops().PreparedBytes(n, cols), std::byte{0xff});
    const PreparedRows prepared =
        ops().PrepareSwiGlu(gate.data(), up.data(), n, cols, type, Int8Parts::kTwo, scratch.data());
    std::vector<float> got = Poison(n * rows);
    const MatMulTask task{&packed.matrix, Whole(w.view), got.data(), rows};
    ops().MatMul(prepared, {&task, 1});
    EXPECT_TRUE(Same(got, want, rows)) << ToString(type);
  }
}

TEST_P(LibraryProductsTest, ARowThatIsNotFiniteShowsInItselfAlone) {
  const uint64_t rows = 20, cols = 256, n = 40;
  const TestTensor w = MakeTensor(DType::kQ4_K, rows, cols, 28);
  const Packed packed = PackSlice(ops(), w, Whole(w.view));
  for (float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> x = RandomFloats(n * cols, 29);
    x[17 * cols + 40] = bad;
    const std::vector<float> y = Product(ops(), packed.matrix, Whole(w.view), x, n);
    for (uint64_t i = 0; i < n * rows; ++i) {
      EXPECT_EQ(std::isfinite(y[i]), i / rows != 17) << "row " << i / rows;
    }
  }
}

TEST_P(LibraryProductsTest, StepsThatAreRecordedUseOwnKernels) {
  OpsRecorder* recorder = ops().recorder();
  if (recorder == nullptr) GTEST_SKIP() << "these ops cannot be recorded";
  const std::vector<float> x = RandomFloats(40 * 64, 30);
  EXPECT_EQ(Prepare(ops(), x, 40, 64, DType::kQ4_0).rows.form, RowForm::kBf16);
  const StepRows none[] = {StepRows{}};
  recorder->Begin(none, kPageTokens);
  EXPECT_EQ(Prepare(ops(), x, 40, 64, DType::kQ4_0).rows.form, RowForm::kInt8);
  recorder->End();
}

TEST_P(LibraryProductsTest, ItsNameIsRecorded) {
  EXPECT_THAT(ops().name(), ::testing::ContainsRegex("^cuda/[a-z0-9_]+ [a-z]+"));
}

INSTANTIATE_TEST_SUITE_P(Rooms, LibraryProductsTest, ::testing::Values(&kSmall, &kNarrow),
                         [](const auto& info) {
                           return info.param == &kSmall ? "small" : "narrow";
                         });

TEST(LibraryTest, MeetsNoF32Activations) {
  try {
    const Bench bench =
        MakeBench({.tier = Tiers()[0], .activations = ActivationType::kF32, .library = &kSmall});
    if (!bench.missing.empty()) GTEST_SKIP() << bench.missing;
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("--activations int8"));
  }
}

}  // namespace
}  // namespace tandem
