// Products with one token (bound by memory: GB/s, and the share of a read probe that runs in turn
// with them) and with many (bound by arithmetic: GMAC/s, and the share of a probe that multiplies
// in registers), per weight type and activation type.
//
//   kernels_bench --benchmark_filter=OneToken
#include <benchmark/benchmark.h>

#include <string>

#include "kernels/bench/bench_support.h"

namespace tandem {
namespace {

// The default model's width, or where that is no whole block, that of a model of 1.5 G weights.
uint64_t Cols(DType type) { return Traits(type).block_elems == 256 ? 2048 : 576; }
constexpr uint64_t kProbeBytes = uint64_t{96} << 20;  // three times the largest cache met so far

// As many rows as make the packed matrix some 96 MiB.
uint64_t StreamRows(DType type) { return kProbeBytes / RowBytes(type, Cols(type)) / 16 * 16; }

void OneToken(benchmark::State& state, DType type, ActivationType activations, int threads) {
  const uint64_t cols = Cols(type);
  BenchRig rig = MakeBenchRig(threads, activations);
  const uint64_t rows = StreamRows(type);
  const BenchMatrix w = MakeBenchMatrix(rig, type, rows, cols);
  ReadProbe probe(rig, kProbeBytes);
  const std::vector<float> x = BenchRows(1, cols);
  std::vector<float> y(rows);
  std::vector<std::byte> scratch(rig.ops->PreparedBytes(1, cols));
  const PreparedRows prepared =
      rig.ops->PrepareRows(x.data(), 1, cols, type, Int8Parts::kOne, scratch.data());
  const MatMulTask task{&w.matrix, w.matrix.slice, y.data(), rows};
  std::vector<double> product_rates, probe_rates;
  for (auto _ : state) {
    probe_rates.push_back(static_cast<double>(kProbeBytes) / probe.Seconds());
    const double begin = SecondsNow();
    rig.ops->MatMul(prepared, {&task, 1});
    const double seconds = SecondsNow() - begin;
    state.SetIterationTime(seconds);
    product_rates.push_back(static_cast<double>(w.matrix.bytes) / seconds);
  }
  state.counters["GB/s"] = Median(product_rates) * 1e-9;
  state.counters["read_GB/s"] = Median(probe_rates) * 1e-9;
  state.counters["share"] = Median(product_rates) / Median(probe_rates);
  state.SetLabel(rig.ops->name());
}

void ManyTokens(benchmark::State& state, DType type, ActivationType activations, int threads) {
  const uint64_t cols = Cols(type);
  BenchRig rig = MakeBenchRig(threads, activations);
  const uint64_t rows = 1536;
  const auto n = static_cast<uint64_t>(state.range(0));
  const BenchMatrix w = MakeBenchMatrix(rig, type, rows, cols);
  const std::vector<float> x = BenchRows(n, cols);
  std::vector<float> y(n * rows);
  std::vector<std::byte> scratch(rig.ops->PreparedBytes(n, cols));
  const PreparedRows prepared =
      rig.ops->PrepareRows(x.data(), n, cols, type, Int8Parts::kOne, scratch.data());
  const MatMulTask task{&w.matrix, w.matrix.slice, y.data(), rows};
  ArithmeticProbe probe(rig, ArithmeticOf(activations, type));
  std::vector<double> rates, probe_rates;
  for (auto _ : state) {
    probe_rates.push_back(probe.OpsPerSecond() / 2);
    const double begin = SecondsNow();
    rig.ops->MatMul(prepared, {&task, 1});
    const double seconds = SecondsNow() - begin;
    state.SetIterationTime(seconds);
    rates.push_back(static_cast<double>(rows * cols * n) / seconds);
  }
  state.counters["GMAC/s"] = Median(rates) * 1e-9;
  state.counters["probe_GMAC/s"] = Median(probe_rates) * 1e-9;
  state.counters["share"] = Median(rates) / Median(probe_rates);
  state.SetLabel(rig.ops->name());
}

const bool kRegistered = [] {
  for (DType type : kAllDTypes) {
    for (ActivationType activations : {ActivationType::kInt8, ActivationType::kF32}) {
      // F32 and F16 meet f32 in either mode.
      if (activations == ActivationType::kInt8 && FormFor(activations, type) == RowForm::kF32) {
        continue;
      }
      for (int threads : {1, 0}) {
        const std::string tail = std::string("/") + ToString(type) + "/" + ToString(activations) +
                                 (threads == 1 ? "/one_thread" : "/all_threads");
        benchmark::RegisterBenchmark(("OneToken" + tail).c_str(), OneToken, type, activations,
                                     threads)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
        benchmark::RegisterBenchmark(("ManyTokens" + tail).c_str(), ManyTokens, type, activations,
                                     threads)
            ->Arg(4)
            ->Arg(32)
            ->Arg(512)
            ->UseManualTime()
            ->Unit(benchmark::kMicrosecond);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace tandem
