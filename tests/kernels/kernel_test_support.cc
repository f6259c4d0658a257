#include "tests/kernels/kernel_test_support.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace tandem {

std::vector<Backend> AllBackends() {
  std::vector<Backend> all;
  for (const std::string& tier : Tiers()) {
    for (ActivationType type : {ActivationType::kInt8, ActivationType::kF32}) {
      // With f32 activations it meets no tile.
      if (tier == "amx_emulated" && type == ActivationType::kF32) continue;
      all.push_back({tier, type});
    }
  }
  return all;
}

std::vector<Backend> Int8Backends() {
  std::vector<Backend> all = AllBackends();
  std::erase_if(all, [](const Backend& b) { return b.activations != ActivationType::kInt8; });
  return all;
}

std::vector<Backend> AllTiers() {
  std::vector<Backend> all;
  for (const std::string& tier : Tiers()) {
    // These differ from avx512 in products alone.
    if (tier == "avx512_bf16" || tier.starts_with("amx")) continue;
    all.push_back({tier, ActivationType::kInt8});
  }
  return all;
}

std::vector<Backend> AllAttention() {
  std::vector<Backend> all;
  for (Backend backend : AllTiers()) {
    for (AttentionPrecision precision : AttentionPrecisions()) {
      for (KeyOrder keys : KeyOrders()) {
        backend.attention = precision;
        backend.keys = keys;
        if (backend.tier != "ref" || keys == KeyOrders()[0]) all.push_back(backend);
      }
    }
  }
  return all;
}

std::string BackendName(const ::testing::TestParamInfo<Backend>& info) {
  const bool half = info.param.attention == AttentionPrecision::kHalf;
  const bool rows = info.param.keys == KeyOrder::kByPosition;
  return info.param.tier + "_" + ToString(info.param.activations) + (half ? "_half" : "") +
         (rows ? "_keys_by_position" : "");
}

std::vector<float> RandomFloats(size_t n, uint64_t seed, float scale) {
  std::mt19937_64 random(seed);
  std::vector<float> x(n);
  for (float& value : x) {
    value = (static_cast<float>(random() >> 40) * 0x1p-23f - 1.0f) * scale;
  }
  return x;
}

TestTensor MakeTensor(DType type, uint64_t rows, uint64_t cols, uint64_t seed) {
  TestTensor tensor;
  tensor.values = RandomFloats(rows * cols, seed);
  tensor.bytes.resize(rows * RowBytes(type, cols));
  for (uint64_t r = 0; r < rows; ++r) {
    std::byte* row = tensor.bytes.data() + r * RowBytes(type, cols);
    QuantizeRow(type, tensor.values.data() + r * cols, row, cols);
    DequantizeRow(type, row, tensor.values.data() + r * cols, cols);
  }
  tensor.view = TensorView{tensor.bytes.data(), type, rows, cols};
  return tensor;
}

Packed PackSlice(Ops& ops, const TestTensor& tensor, const MatrixSlice& slice) {
  Packed packed;
  const uint64_t bytes = ops.PackedBytes(tensor.view.type, slice);
  packed.bytes.assign(bytes, std::byte{0xff});
  packed.matrix = PackedMatrix{packed.bytes.data(), bytes, tensor.view.type, slice};
  ops.Pack(tensor.view, packed.matrix);
  return packed;
}

Prepared Prepare(Ops& ops, const std::vector<float>& x, uint64_t n, uint64_t cols, DType type,
                 Int8Parts parts) {
  Prepared prepared;
  prepared.scratch.assign(ops.PreparedBytes(n, cols), std::byte{0xff});
  prepared.rows = ops.PrepareRows(x.data(), n, cols, type, parts, prepared.scratch.data());
  return prepared;
}

std::vector<float> Product(Ops& ops, const PackedMatrix& w, const MatrixSlice& slice,
                           const std::vector<float>& x, uint64_t n, Int8Parts parts) {
  std::vector<float> y = Poison(n * slice.rows());
  const Prepared prepared = Prepare(ops, x, n, slice.cols(), w.type, parts);
  const MatMulTask task{&w, slice, y.data(), slice.rows()};
  ops.MatMul(prepared.rows, {&task, 1});
  return y;
}

std::vector<float> Poison(size_t n) {
  return std::vector<float>(n, std::numeric_limits<float>::quiet_NaN());
}

double F32Tolerance(const float* w, const float* x, uint64_t cols) {
  double ww = 0.0, xx = 0.0;
  for (uint64_t c = 0; c < cols; ++c) {
    ww += double{w[c]} * w[c];
    xx += double{x[c]} * x[c];
  }
  return 8.0 * kUnitF32 * std::sqrt(static_cast<double>(cols) * ww * xx) + 1e-30;
}

std::vector<float> DoubleProduct(const TestTensor& w, const std::vector<float>& x, uint64_t n) {
  const uint64_t rows = w.view.rows, cols = w.view.cols;
  std::vector<float> y(n * rows);
  for (uint64_t t = 0; t < n; ++t) {
    for (uint64_t r = 0; r < rows; ++r) {
      double sum = 0.0;
      for (uint64_t c = 0; c < cols; ++c) sum += double{w.values[r * cols + c]} * x[t * cols + c];
      y[t * rows + r] = static_cast<float>(sum);
    }
  }
  return y;
}

::testing::AssertionResult Same(const std::vector<float>& got, const std::vector<float>& want,
                                size_t width) {
  if (got.size() != want.size()) return ::testing::AssertionFailure() << "sizes differ";
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &want[i], sizeof(float)) != 0) {
      return ::testing::AssertionFailure()
             << "row " << i / width << " column " << i % width << ": got " << got[i]
             << ", want the bits of " << want[i];
    }
  }
  return ::testing::AssertionSuccess();
}

}  // namespace tandem
