// What the AMX tier promises beyond conformance: the int8 bits of the AVX-512 tiers, and the order
// in which a BF16 output is summed. On the processor's tiles, or else on those in software.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/kernels/kernel_test_support.h"

namespace tandem {
namespace {

class AmxTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* tier : {"amx", "amx_emulated"}) {
      bench_ = MakeBench({tier, ActivationType::kInt8});
      if (bench_.ops) break;
    }
    if (!bench_.ops) GTEST_SKIP() << bench_.missing;
    vector_ = MakeBench({"avx512", ActivationType::kInt8});
    ASSERT_NE(vector_.ops, nullptr) << vector_.missing;
  }
  Ops& ops() { return *bench_.ops; }
  // The tier whose bits its int8 products have.
  Ops& vector_ops() { return *vector_.ops; }
  Bench bench_, vector_;
};

// Chunks of one, two and three parts, of odd and even numbers of groups; tokens below, at and above
// whole tiles, and enough for a second pass over the panels.
TEST_F(AmxTest, Int8ProductsHaveTheBitsOfAvx512) {
  for (DType type : kAllDTypes) {
    if (!Traits(type).quantized) continue;
    for (uint64_t cols : {32, 160, 544, 1088}) {
      const uint64_t rows = 53, width = WholeBlocks(type, cols);
      const TestTensor w = MakeTensor(type, rows, width, 1);
      const Packed packed = PackSlice(ops(), w, Whole(w.view));
      for (uint64_t n : {1, 4, 5, 15, 16, 17, 37}) {
        const std::vector<float> x = RandomFloats(n * width, 2, 3.0f);
        EXPECT_TRUE(Same(Product(ops(), packed.matrix, Whole(w.view), x, n),
                         Product(vector_ops(), packed.matrix, Whole(w.view), x, n), rows))
            << ToString(type) << " cols " << width << " n " << n;
      }
    }
  }
}

TEST_F(AmxTest, ASecondPassOverThePanelsHasTheSameBits) {
  // Rows of activations so long that 64 of them are one pass.
  const uint64_t rows = 20, cols = 8192, n = 70;
  const TestTensor w = MakeTensor(DType::kQ4_1, rows, cols, 3);
  const Packed packed = PackSlice(ops(), w, Whole(w.view));
  const std::vector<float> x = RandomFloats(n * cols, 4);
  EXPECT_TRUE(Same(Product(ops(), packed.matrix, Whole(w.view), x, n),
                   Product(vector_ops(), packed.matrix, Whole(w.view), x, n), rows));
}

// One chain over steps of 32 columns; a step is the sum of its even and of its odd products.
std::vector<float> InSteps(const TestTensor& w, const std::vector<float>& x, uint64_t n) {
  const uint64_t rows = w.view.rows, cols = w.view.cols;
  std::vector<float> y(n * rows);
  for (uint64_t t = 0; t < n; ++t) {
    for (uint64_t r = 0; r < rows; ++r) {
      float sum = 0.0f;
      for (uint64_t step = 0; step < cols; step += 32) {
        float chain[2] = {0.0f, 0.0f};
        for (uint64_t c = step; c < std::min(cols, step + 32); ++c) {
          const float activation = BF16ToF32(F32ToBF16(x[t * cols + c]));
          chain[c % 2] = std::fma(activation, w.values[r * cols + c], chain[c % 2]);
        }
        sum += chain[0] + chain[1];
      }
      y[t * rows + r] = sum;
    }
  }
  return y;
}

TEST_F(AmxTest, Bf16ProductsAreSummedInStepsOf32Columns) {
  for (uint64_t cols : {1, 30, 32, 33, 64, 250}) {
    const uint64_t rows = 53;
    const TestTensor w = MakeTensor(DType::kBF16, rows, cols, 5);
    const Packed packed = PackSlice(ops(), w, Whole(w.view));
    for (uint64_t n : {1, 15, 16, 17, 31, 32, 33, 70}) {
      const std::vector<float> x = RandomFloats(n * cols, 6);
      EXPECT_TRUE(Same(Product(ops(), packed.matrix, Whole(w.view), x, n), InSteps(w, x, n), rows))
          << cols << " columns, n " << n;
    }
  }
}

TEST_F(AmxTest, TakesSubnormalsForZero) {
  TestTensor w = MakeTensor(DType::kBF16, 16, 2, 7);
  const float tiny = 0x1p-130f, small = 0x1p-100f;
  for (uint64_t i = 0; i < 32; ++i) {
    const uint16_t bits = F32ToBF16(i % 2 == 0 ? tiny : small);
    std::memcpy(w.bytes.data() + 2 * i, &bits, sizeof(bits));
  }
  const Packed packed = PackSlice(ops(), w, Whole(w.view));
  // Of the first product an operand is subnormal, of the second the result.
  for (float value : Product(ops(), packed.matrix, Whole(w.view), {1.0f, 0x1p-30f}, 1)) {
    EXPECT_EQ(value, 0.0f);
  }
  for (float value : Product(ops(), packed.matrix, Whole(w.view), {1.0f, 1.0f}, 1)) {
    EXPECT_EQ(value, small);
  }
}

TEST(AmxTierTest, ForcedWhereThereAreNoTilesIsAClearError) {
  const Bench bench = MakeBench({"amx", ActivationType::kInt8});
  if (bench.ops) GTEST_SKIP() << "this processor has tiles";
  EXPECT_THAT(bench.missing, ::testing::HasSubstr("'amx' is not one that this processor has"));
  EXPECT_THAT(bench.missing, ::testing::HasSubstr("portable"));
}

}  // namespace
}  // namespace tandem
