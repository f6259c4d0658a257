// Packed weights as plain BF16 rows: every element of every type, to the bit, whatever part of a
// packed matrix is wanted.
#include <gtest/gtest.h>

#include <cstring>

#include "kernels/cuda/layout.h"
#include "kernels/cuda/unpack.h"
#include "tests/kernels/kernel_test_support.h"

namespace tandem::cuda {
namespace {

constexpr uint16_t kPoison = 0x7fc1;  // a NaN
constexpr size_t kGuard = 64;         // elements behind the result

class UnpackTest : public ::testing::TestWithParam<DType> {
 protected:
  // Panels [first, first + panels) of a packed matrix, its columns [begin, end).
  void Expect(const TestTensor& w, const MatrixSlice& held, uint32_t first, uint32_t panels,
              uint32_t begin, uint32_t end) {
    SCOPED_TRACE(::testing::Message() << ToString(GetParam()) << " panels " << first << " + "
                                      << panels << " columns " << begin << ".." << end);
    const Packed packed = PackSlice(*bench_.ops, w, held);
    const uint32_t stride = (end - begin + kBf16Cols - 1) / kBf16Cols * kBf16Cols;
    const uint64_t panel_bytes = kPanelRows * RowBytes(GetParam(), held.cols());
    const size_t n = size_t{panels} * kPanelRows * stride;
    // 16-byte aligned memory.
    std::vector<Sixteen> memory((n + kGuard) / 8);
    auto* out = reinterpret_cast<uint16_t*>(memory.data());
    std::fill(out, out + n + kGuard, kPoison);
    LaunchUnpack(GetParam(),
                 UnpackCall{.w = packed.bytes.data() + first * panel_bytes,
                            .panel_bytes = panel_bytes,
                            .panels = panels,
                            .packed_cols = static_cast<uint32_t>(held.cols()),
                            .col_begin = begin,
                            .cols = end - begin,
                            .stride = stride,
                            .out = out},
                 GpuStream{nullptr, true});
    for (uint32_t r = 0; r < panels * kPanelRows; ++r) {
      const uint64_t row = held.row_begin + uint64_t{first} * kPanelRows + r;
      for (uint32_t c = 0; c < stride; ++c) {
        const bool there = row < held.row_end && begin + c < end;
        const float want = there ? w.values[row * w.view.cols + held.col_begin + begin + c] : 0.0f;
        ASSERT_EQ(BF16ToF32(out[uint64_t{r} * stride + c]), BF16ToF32(F32ToBF16(want)))
            << "row " << r << " column " << c;
      }
    }
    for (size_t i = n; i < n + kGuard; ++i) ASSERT_EQ(out[i], kPoison) << "behind the end";
  }
  struct alignas(16) Sixteen {
    std::byte bytes[16];
  };
  Bench bench_ = MakeBench({Tiers()[0], ActivationType::kInt8});
};

TEST_P(UnpackTest, EveryElementOfAMatrix) {
  for (uint64_t cols : {32, 96, 160, 256, 1376}) {
    cols = WholeBlocks(GetParam(), cols);
    const TestTensor w = MakeTensor(GetParam(), 37, cols, 1);
    Expect(w, Whole(w.view), 0, 3, 0, static_cast<uint32_t>(cols));
  }
}

TEST_P(UnpackTest, SlicesOfAPackedSlice) {
  const uint64_t block = Traits(GetParam()).block_elems;
  // Blocks of 32 or 256; of plain types, columns that are on no unit's bounds.
  const uint64_t step = Traits(GetParam()).quantized ? block : 13;
  const TestTensor w = MakeTensor(GetParam(), 90, 9 * step, 2);
  const MatrixSlice held{5, 83, step, 9 * step};
  for (auto [begin, end] : {std::pair<uint64_t, uint64_t>{0, 8}, {1, 6}, {3, 4}, {5, 8}}) {
    Expect(w, held, 0, 5, static_cast<uint32_t>(begin * step), static_cast<uint32_t>(end * step));
    Expect(w, held, 2, 2, static_cast<uint32_t>(begin * step), static_cast<uint32_t>(end * step));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, UnpackTest, ::testing::ValuesIn(kAllDTypes),
                         [](const auto& info) { return std::string(ToString(info.param)); });

}  // namespace
}  // namespace tandem::cuda
