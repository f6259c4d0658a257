// The CPU back end's own parts: the choice of a tier, the panel layout, the checks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "engine/base/error.h"
#include "kernels/cpu/panel.h"
#include "tests/kernels/kernel_test_support.h"

namespace tandem {
namespace {

TEST(CpuOpsTest, NamesItsTierAndTakesOneByDefault) {
  ThreadPool pool({.threads = 1});
  EXPECT_EQ(MakeCpuOps(pool, {.tier = "portable"})->name(), "cpu/portable");
  EXPECT_THAT(MakeCpuOps(pool, {})->name(), ::testing::StartsWith("cpu/"));
}

TEST(CpuOpsTest, RefusesAnUnknownTierAndListsTheOthers) {
  ThreadPool pool({.threads = 1});
  try {
    MakeCpuOps(pool, {.tier = "avx9000"});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("avx9000"));
    EXPECT_THAT(error.what(), ::testing::HasSubstr("portable"));
  }
}

TEST(PanelTest, UnpacksWhatItPacked) {
  for (DType type : kAllDTypes) {
    for (uint32_t lanes : {8u, 16u}) {
      // Random bytes: every bit must come back.
      const uint64_t block = 32 * Stretch(type), cols = 3 * block;
      TestTensor w = MakeTensor(type, lanes, cols, 1);
      std::mt19937 random(2);
      for (std::byte& byte : w.bytes) byte = static_cast<std::byte>(random());
      for (uint64_t rows : {uint64_t{1}, uint64_t{lanes}}) {
        const cpu::PanelLayout layout{type, lanes, cols, lanes == 16};
        std::vector<std::byte> panel(layout.PanelBytes(), std::byte{0xff});
        cpu::PackPanel(layout, w.bytes.data(), w.view.row_bytes(), rows, panel.data());
        for (uint64_t r = 0; r < lanes; ++r) {
          std::vector<std::byte> stored(RowBytes(type, 2 * block));
          cpu::UnpackRow(layout, panel.data(), r, block, 2 * block, stored.data());
          const std::byte* from = w.view.row(r) + RowBytes(type, block);
          const std::vector<std::byte> want =
              r < rows ? std::vector<std::byte>(from, from + stored.size())
                       : std::vector<std::byte>(stored.size(), std::byte{0});
          EXPECT_EQ(stored, want) << ToString(type) << " row " << r;
        }
      }
    }
  }
}

TEST(OpsDeathTest, MismatchedShapesAreBugs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const char* tier : {"ref", "portable"}) {
    const Bench bench = MakeBench({tier, ActivationType::kInt8}, 1);
    Ops& ops = *bench.ops;
    const TestTensor w = MakeTensor(DType::kQ4_0, 16, 128, 1);
    const Packed packed = PackSlice(ops, w, {0, 8, 32, 128});
    const std::vector<float> x = RandomFloats(128, 2);
    EXPECT_DEATH(Product(ops, packed.matrix, {0, 9, 32, 128}, x, 1), "rows outside");
    EXPECT_DEATH(Product(ops, packed.matrix, {0, 8, 0, 128}, x, 1), "columns outside");
    EXPECT_DEATH(PackSlice(ops, w, {0, 17, 0, 128}), "slice rows");
    const PreparedRows plain =
        ops.PrepareRows(x.data(), 1, 96, DType::kF32, Int8Parts::kOne, nullptr);
    float y[8];
    const MatMulTask task{&packed.matrix, {0, 8, 32, 128}, y, 8};
    EXPECT_DEATH(ops.MatMul(plain, {&task, 1}), "prepared for weights of another form");
    const MatMulTask narrow{&packed.matrix, {0, 8, 32, 128}, y, 7};
    EXPECT_DEATH(ops.MatMul(plain, {&narrow, 1}), "kernels: MatMul");
  }
}

}  // namespace
}  // namespace tandem
