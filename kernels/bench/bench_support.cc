#include "kernels/bench/bench_support.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>

#include "engine/model/quant_block.h"

namespace tandem {

BenchRig MakeBenchRig(int threads, ActivationType activations, const std::string& tier) {
  BenchRig rig;
  rig.pool = std::make_shared<ThreadPool>(ThreadPoolOptions{.threads = threads, .pin = true});
  rig.device = std::make_unique<CpuDevice>(DeviceId{0}, Bytes{0}, rig.pool);
  rig.ops = MakeCpuOps(*rig.pool, {.activations = activations, .tier = tier});
  return rig;
}

BenchMatrix MakeBenchMatrix(BenchRig& rig, DType type, uint64_t rows, uint64_t cols) {
  std::mt19937_64 random(7);
  std::vector<std::byte> stored(rows * RowBytes(type, cols));
  const uint64_t block = Traits(type).block_bytes;
  const uint16_t scale = F32ToF16(0.01f);
  for (uint64_t at = 0; at < stored.size(); at += block) {
    if (Traits(type).quantized) {
      for (uint64_t i = 0; i < block; ++i) stored[at + i] = static_cast<std::byte>(random());
      const uint64_t d = type == DType::kQ6_K ? 208 : 0;
      std::memcpy(&stored[at + d], &scale, sizeof(scale));
      if (HasMinimum(type)) std::memcpy(&stored[at + 2], &scale, sizeof(scale));
    } else {
      const float value = static_cast<float>(random() >> 40) * 0x1p-24f - 0.5f;
      QuantizeRow(type, &value, &stored[at], 1);
    }
  }
  BenchMatrix out;
  const MatrixSlice slice{0, rows, 0, cols};
  const uint64_t bytes = rig.ops->PackedBytes(type, slice);
  out.memory = rig.device->Allocate(MemoryUse::kWeights, Bytes{bytes}, "bench weights");
  out.matrix = PackedMatrix{out.memory.data(), bytes, type, slice};
  rig.ops->Pack(TensorView{stored.data(), type, rows, cols}, out.matrix);
  return out;
}

std::vector<float> BenchRows(uint64_t n, uint64_t cols) {
  std::mt19937_64 random(9);
  std::vector<float> x(n * cols);
  for (float& value : x) value = static_cast<float>(random() >> 40) * 0x1p-23f - 1.0f;
  return x;
}

ReadProbe::ReadProbe(BenchRig& rig, uint64_t bytes)
    : pool_(*rig.pool),
      loops_(BestProbeLoops(ArithmeticKind::kF32)),
      memory_(rig.device->Allocate(MemoryUse::kWorkspace, Bytes{bytes}, "read probe")) {}

double ReadProbe::Seconds() {
  constexpr int64_t kGrain = 512;  // bytes, of the loops
  const double begin = SecondsNow();
  pool_.Run([&](int thread, int threads) {
    const WorkRange range =
        SplitWork(static_cast<int64_t>(memory_.size()), thread, threads, kGrain);
    const int64_t bytes = (range.end - range.begin) / kGrain * kGrain;
    benchmark::DoNotOptimize(loops_.read(memory_.data() + range.begin, static_cast<size_t>(bytes)));
  });
  return SecondsNow() - begin;
}

ArithmeticProbe::ArithmeticProbe(BenchRig& rig, ArithmeticKind kind)
    : pool_(*rig.pool), loops_(BestProbeLoops(kind)) {
  constexpr double kOps = 1e8;  // a thread: a tenth of a millisecond or so
  iterations_ = static_cast<uint64_t>(kOps / loops_.ops_per_iteration) + 1;
}

double ArithmeticProbe::OpsPerSecond() {
  const double begin = SecondsNow();
  pool_.Run([&](int, int) { benchmark::DoNotOptimize(loops_.arithmetic(iterations_)); });
  const double seconds = SecondsNow() - begin;
  return loops_.ops_per_iteration * static_cast<double>(iterations_) * pool_.threads() / seconds;
}

ArithmeticKind ArithmeticOf(ActivationType activations, DType type) {
  switch (FormFor(activations, type)) {
    case RowForm::kInt8:
      return ArithmeticKind::kInt8;
    case RowForm::kBf16:
      return ArithmeticKind::kBf16;
    case RowForm::kF32:
      break;
  }
  return ArithmeticKind::kF32;
}

double SecondsNow() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

}  // namespace tandem
