#include "tests/kernels/kernel_test_support.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "engine/base/error.h"
#include "kernels/cpu/cpu_ops.h"
#include "tests/kernels/amx_emulated.h"

namespace tandem {

std::vector<Backend> AllBackends() {
  std::vector<Backend> all;
  for (const char* tier : {"ref", "portable", "avx2", "avx512", "avx512_bf16", "amx"}) {
    for (ActivationType type : {ActivationType::kInt8, ActivationType::kF32}) {
      all.push_back({tier, type});
    }
  }
  // With f32 activations it meets no tile.
  all.push_back({"amx_emulated", ActivationType::kInt8});
  return all;
}

std::vector<Backend> AllTiers() {
  return {{"ref", ActivationType::kInt8},
          {"portable", ActivationType::kInt8},
          {"avx2", ActivationType::kInt8},
          {"avx512", ActivationType::kInt8}};
}

std::string BackendName(const ::testing::TestParamInfo<Backend>& info) {
  return info.param.tier + "_" + ToString(info.param.activations);
}

Bench MakeBench(const Backend& backend, int threads) {
  Bench bench;
  if (backend.tier == "ref") {
    bench.ops = MakeRefOps(backend.activations);
    return bench;
  }
  bench.pool = std::make_unique<ThreadPool>(ThreadPoolOptions{.threads = threads});
  if (backend.tier == "amx_emulated") {
    const EmulatedTier emulated = AmxEmulated();
    if (emulated.tier == nullptr) {
      bench.missing = emulated.missing;
    } else {
      bench.ops = cpu::MakeOps(*bench.pool, *emulated.tier, backend.activations);
    }
    return bench;
  }
  try {
    bench.ops = MakeCpuOps(*bench.pool, {.activations = backend.activations, .tier = backend.tier});
  } catch (const Error& error) {
    bench.missing = error.what();
  }
  return bench;
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
