// What the kernel tests share: every back end by name, seeded data, and comparisons that print the
// worst element.
//
//   INSTANTIATE_TEST_SUITE_P(Backends, MatMulTest, ::testing::ValuesIn(AllBackends()),
//   BackendName);
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/device/cpu/thread_pool.h"
#include "kernels/cuda/library_room.h"
#include "kernels/ops.h"

namespace tandem {

// The least multiple of the type's block that holds `cols`.
inline uint64_t WholeBlocks(DType type, uint64_t cols) {
  const uint64_t block = Traits(type).block_elems;
  return (cols + block - 1) / block * block;
}
// How many times longer than 32 columns its block is: what column bounds are multiplied by where a
// test speaks of blocks of 32.
inline uint64_t Stretch(DType type) { return Traits(type).block_elems == 256 ? 8 : 1; }

struct Backend {
  std::string tier;  // "ref", "portable", "avx2", ...
  ActivationType activations = ActivationType::kInt8;
  AttentionPrecision attention = AttentionPrecision::kSplit;
  KeyOrder keys = KeyOrder::kByColumn;   // of the CPU's
  const LibraryRoom* library = nullptr;  // CUDA: many rows by a library, in this room
};
// Of the family that this program is linked with (backends_*.cc).
std::vector<std::string> Tiers();
std::vector<AttentionPrecision> AttentionPrecisions();
std::vector<KeyOrder> KeyOrders();
std::vector<Backend> AllBackends();
// Those whose quantised weights meet int8.
std::vector<Backend> Int8Backends();
// Each tier once, for ops that do not ask how activations are held.
std::vector<Backend> AllTiers();
// Each of them in every precision of attention and every order of keys that it has.
std::vector<Backend> AllAttention();
std::string BackendName(const ::testing::TestParamInfo<Backend>& info);

// Whether rows in so many parts are another case than rows in one.
inline bool HasParts(ActivationType activations, DType type, Int8Parts parts) {
  return parts == Int8Parts::kOne || FormFor(activations, type) == RowForm::kInt8;
}

// An Ops with its team. Empty, with the reason, where the processor lacks the tier.
struct Bench {
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<Device> device;  // CUDA: where ops keep what they need besides
  std::unique_ptr<Ops> ops;
  std::string missing;
};
Bench MakeBench(const Backend& backend, int threads = 2);

// Where column d of the key in `slot` lies among the keys of one head's page.
inline uint64_t KeyAt(KeyOrder order, uint64_t head_dim, uint64_t slot, uint64_t d) {
  return order == KeyOrder::kByColumn ? d * kPageTokens + slot : slot * head_dim + d;
}

// Uniform in [-1, 1), the same on every machine.
std::vector<float> RandomFloats(size_t n, uint64_t seed, float scale = 1.0f);

// A tensor with its stored bytes, and the same values as f32.
struct TestTensor {
  std::vector<std::byte> bytes;
  std::vector<float> values;  // (rows, cols), dequantised
  TensorView view;
};
TestTensor MakeTensor(DType type, uint64_t rows, uint64_t cols, uint64_t seed);

// A packed slice with its memory, poisoned before packing.
struct Packed {
  std::vector<std::byte> bytes;
  PackedMatrix matrix;
};
Packed PackSlice(Ops& ops, const TestTensor& tensor, const MatrixSlice& slice);
inline MatrixSlice Whole(const TensorView& view) { return {0, view.rows, 0, view.cols}; }

// Rows ready for a product, with their memory.
struct Prepared {
  std::vector<std::byte> scratch;
  PreparedRows rows;
};
Prepared Prepare(Ops& ops, const std::vector<float>& x, uint64_t n, uint64_t cols, DType type,
                 Int8Parts parts = Int8Parts::kOne);

// y (n, slice.rows) of one product, NaN before it was computed.
std::vector<float> Product(Ops& ops, const PackedMatrix& w, const MatrixSlice& slice,
                           const std::vector<float>& x, uint64_t n,
                           Int8Parts parts = Int8Parts::kOne);

std::vector<float> Poison(size_t n);

inline constexpr double kUnitF32 = 0x1p-24;  // rounding unit
// An f32 sum of K products errs by some sqrt(K) units of the product of the norms; 8 is the margin.
double F32Tolerance(const float* w, const float* x, uint64_t cols);
// x W^T on the dequantised weights, in double.  (n, rows)
std::vector<float> DoubleProduct(const TestTensor& w, const std::vector<float>& x, uint64_t n);

// |got - want| <= tolerance(i) for each element; names the worst by its ratio. NaN is never near.
template <typename Tolerance>
::testing::AssertionResult Near(const std::vector<float>& got, const std::vector<float>& want,
                                size_t width, Tolerance tolerance) {
  if (got.size() != want.size()) return ::testing::AssertionFailure() << "sizes differ";
  double worst = 0.0;
  size_t at = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(double{got[i]} - want[i]);
    const double ratio = error == error ? error / tolerance(i) : INFINITY;
    if (ratio > worst) {
      worst = ratio;
      at = i;
    }
  }
  if (worst <= 1.0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << "worst element: row " << at / width << " column " << at % width << ", got " << got[at]
         << ", want " << want[at] << ", " << worst << " times the tolerance " << tolerance(at);
}

// The same bits.
::testing::AssertionResult Same(const std::vector<float>& got, const std::vector<float>& want,
                                size_t width);

}  // namespace tandem
