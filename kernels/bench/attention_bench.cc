// Attention of the default model's heads: one new token over a long past (GB/s of keys and values,
// and the share of a read probe that runs in turn with it) out of memory or out of the cache, where
// arithmetic alone is the limit, and a prompt (GMAC/s, and the share of a probe that multiplies in
// registers).
//
//   kernels_bench --benchmark_filter=Attention
#include <benchmark/benchmark.h>

#include <string>

#include "kernels/bench/bench_support.h"

namespace tandem {
namespace {

constexpr uint32_t kHeads = 9, kKvHeads = 3, kHeadDim = 64;
constexpr uint64_t kPageBytes = uint64_t{2} * kKvHeads * kPageTokens * kHeadDim * 2;

// The pages of `layers` caches of `tokens` positions each, all finite.
struct Cache {
  Cache(BenchRig& rig, uint32_t layers, uint32_t tokens)
      : pages_each((tokens + kPageTokens - 1) / kPageTokens),
        memory(rig.device->Allocate(MemoryUse::kKv, Bytes{layers * pages_each * kPageBytes},
                                    "benchmark: kv")),
        room(rig.device->Allocate(MemoryUse::kWorkspace, Bytes{1 << 20}, "benchmark: room")) {
    auto* halves = memory.as<uint16_t>();
    for (uint64_t i = 0; i < memory.size() / 2; ++i) halves[i] = 0x3000 + i % 1021;  // 1/8 .. 1/4
    for (uint32_t i = 0; i < pages_each; ++i) pages.push_back(static_cast<int32_t>(i));
  }
  KvView Layer(uint32_t layer) {
    return {memory.data() + layer * pages_each * kPageBytes,
            kPageBytes,
            kKvHeads,
            kHeadDim,
            room.data(),
            room.size()};
  }
  uint64_t pages_each;
  Buffer memory;
  Buffer room;
  std::vector<int32_t> pages;
};

// Of one layer, kLayers times over, where it is `cached`.
void DecodeAttention(benchmark::State& state, int threads, bool cached) {
  constexpr uint32_t kLayers = 30;
  const auto context = static_cast<uint32_t>(state.range(0));
  BenchRig rig = MakeBenchRig(threads, ActivationType::kInt8);
  Cache cache(rig, cached ? 1 : kLayers, context);
  const uint64_t read = uint64_t{2} * kKvHeads * kHeadDim * 2 * context * kLayers;
  ReadProbe probe(rig, read);
  const std::vector<float> q = BenchRows(1, uint64_t{kHeads} * kHeadDim);
  std::vector<float> out(q.size());
  const SequenceRows last{0, 1, context - 1, cache.pages.data()};
  std::vector<double> seconds, probe_seconds;
  for (auto _ : state) {
    probe_seconds.push_back(probe.Seconds());
    const double begin = SecondsNow();
    for (uint32_t layer = 0; layer < kLayers; ++layer) {
      rig.ops->Attention(q.data(), kHeads, 0, {&last, 1}, cache.Layer(cached ? 0 : layer),
                         out.data());
    }
    seconds.push_back(SecondsNow() - begin);
    state.SetIterationTime(seconds.back());
  }
  state.counters["GB/s"] = static_cast<double>(read) / Median(seconds) * 1e-9;
  state.counters["read_GB/s"] = static_cast<double>(read) / Median(probe_seconds) * 1e-9;
  state.counters["share"] = Median(probe_seconds) / Median(seconds);
  state.SetLabel(rig.ops->name());
}

void PrefillAttention(benchmark::State& state, int threads) {
  const auto tokens = static_cast<uint32_t>(state.range(0));
  BenchRig rig = MakeBenchRig(threads, ActivationType::kInt8);
  Cache cache(rig, 1, tokens);
  const std::vector<float> q = BenchRows(tokens, uint64_t{kHeads} * kHeadDim);
  std::vector<float> out(q.size());
  const SequenceRows all{0, tokens, 0, cache.pages.data()};
  ArithmeticProbe probe(rig, ArithmeticKind::kF32);
  std::vector<double> seconds, probe_rates;
  for (auto _ : state) {
    probe_rates.push_back(probe.OpsPerSecond() / 2);
    const double begin = SecondsNow();
    rig.ops->Attention(q.data(), kHeads, 0, {&all, 1}, cache.Layer(0), out.data());
    seconds.push_back(SecondsNow() - begin);
    state.SetIterationTime(seconds.back());
  }
  const double pairs = 0.5 * tokens * (tokens + 1.0) * kHeads;  // of a query and a position
  const double rate = 2.0 * kHeadDim * pairs / Median(seconds);
  state.counters["GMAC/s"] = rate * 1e-9;
  state.counters["probe_GMAC/s"] = Median(probe_rates) * 1e-9;
  state.counters["share"] = rate / Median(probe_rates);
  state.SetLabel(rig.ops->name());
}

const bool kRegistered = [] {
  for (int threads : {1, 0}) {
    const std::string tail = threads == 1 ? "/one_thread" : "/all_threads";
    for (const bool cached : {false, true}) {
      const std::string name = (cached ? "DecodeAttentionCached" : "DecodeAttention") + tail;
      benchmark::RegisterBenchmark(name.c_str(), DecodeAttention, threads, cached)
          ->Arg(512)
          ->Arg(4000)
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond);
    }
    benchmark::RegisterBenchmark(("PrefillAttention" + tail).c_str(), PrefillAttention, threads)
        ->Arg(512)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace tandem
