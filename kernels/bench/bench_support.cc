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
  rig.pool = std::make_shared<ThreadPool>(ThreadPoolOptions{.threads = threads});
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
      memory_(rig.device->Allocate(MemoryUse::kWorkspace, Bytes{bytes}, "read probe")) {}

double ReadProbe::Seconds() {
  const auto words = static_cast<int64_t>(memory_.size() / sizeof(uint64_t));
  const double begin = SecondsNow();
  pool_.Run([&](int thread, int threads) {
    const WorkRange range = SplitWork(words, thread, threads, 64);
    const auto* word = memory_.as<const uint64_t>();
    uint64_t sums[16] = {};
    for (int64_t i = range.begin; i + 16 <= range.end; i += 16) {
      for (int64_t j = 0; j < 16; ++j) sums[j] += word[i + j];
    }
    uint64_t sum = 0;
    for (uint64_t s : sums) sum += s;
    benchmark::DoNotOptimize(sum);
  });
  return SecondsNow() - begin;
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
