// Whole steps of a model of the default one's shape (SmolLM2-135M: 30 layers, hidden 576, 9 heads
// over 3, FFN 1536, vocabulary 49152; quantised types with a Q8_0 embedding), op after op as the
// executor calls them, with random weights: tokens/s of prefill and decode without the rest of the
// engine. "share" of a decode is the time of a read probe as large as the weights, run in turn with
// the steps, over the step's; of a prefill, the multiply-adds of its layers' products (one part of
// int8 counted) a second, over those of a probe that multiplies in registers.
//
//   kernels_bench --benchmark_filter='^(Prefill|Decode)/'
#include <benchmark/benchmark.h>

#include "kernels/bench/bench_support.h"

namespace tandem {
namespace {

constexpr uint64_t kHidden = 576, kKv = 192, kFfn = 1536, kVocab = 49152, kLayers = 30;
constexpr uint32_t kHeads = 9, kKvHeads = 3, kHeadDim = 64;
constexpr uint64_t kPages = 128;
constexpr uint64_t kPageBytes = uint64_t{2} * kKvHeads * kPageTokens * kHeadDim * 2;

struct Layer {
  BenchMatrix q, k, v, o, gate, up, down;
  Buffer pages;
};

class Step {
 public:
  Step(DType type, int threads, uint64_t rows)
      : type_(type), rig_(MakeBenchRig(threads, ActivationType::kInt8)) {
    for (uint64_t l = 0; l < kLayers; ++l) {
      layers_.push_back(
          Layer{Matrix(kHidden, kHidden), Matrix(kKv, kHidden), Matrix(kKv, kHidden),
                Matrix(kHidden, kHidden), Matrix(kFfn, kHidden), Matrix(kFfn, kHidden),
                Matrix(kHidden, kFfn),
                rig_.device->Allocate(MemoryUse::kKv, Bytes{kPages * kPageBytes}, "pages")});
    }
    const DType embedding = Traits(type).quantized ? DType::kQ8_0 : type;
    embedding_ = MakeBenchMatrix(rig_, embedding, kVocab, kHidden);
    weight_bytes_ += embedding_.matrix.bytes;
    norm_.assign(kHidden, 1.0f);
    for (std::vector<float>* wide : {&x_, &n_, &q_, &y_}) wide->resize(rows * kHidden);
    k_.resize(rows * kKv);
    v_.resize(rows * kKv);
    gate_.resize(rows * kFfn);
    up_.resize(rows * kFfn);
    logits_.resize(rows * kVocab);
    scratch_.resize(std::max<uint64_t>(rig_.ops->PreparedBytes(rows, kFfn), 1 << 20));
  }

  std::string name() const { return rig_.ops->name(); }
  BenchRig& rig() { return rig_; }
  // Of all matrices: what a step with logits reads.
  uint64_t weight_bytes() const { return weight_bytes_; }

  // `sampled` of the rows, the last ones, get logits.
  void Run(std::span<const SequenceRows> sequences, uint64_t rows, uint64_t sampled) {
    Ops& ops = *rig_.ops;
    const std::vector<int32_t> ids(rows, 77);
    ops.Embed(embedding_.matrix, embedding_.matrix.slice, ids, x_.data());
    for (Layer& layer : layers_) {
      Attention(layer, sequences, rows);
      Mlp(layer, rows);
    }
    ops.RmsNorm(x_.data() + (rows - sampled) * kHidden, norm_.data(), 1e-5f, sampled, kHidden,
                n_.data());
    Multiply(n_, sampled, kHidden, {Task(embedding_, logits_)});
  }

 private:
  using Tasks = std::vector<MatMulTask>;

  Tasks Qkv(const Layer& layer) {
    return {Task(layer.q, q_), Task(layer.k, k_), Task(layer.v, v_)};
  }
  Tasks GateUp(const Layer& layer) { return {Task(layer.gate, gate_), Task(layer.up, up_)}; }

  BenchMatrix Matrix(uint64_t rows, uint64_t cols) {
    BenchMatrix matrix = MakeBenchMatrix(rig_, type_, rows, cols);
    weight_bytes_ += matrix.matrix.bytes;
    return matrix;
  }
  static MatMulTask Task(const BenchMatrix& w, std::vector<float>& y) {
    return {&w.matrix, w.matrix.slice, y.data(), w.matrix.slice.rows()};
  }
  void Multiply(const std::vector<float>& x, uint64_t rows, uint64_t cols, const Tasks& tasks,
                Int8Parts parts = Int8Parts::kOne) {
    const PreparedRows prepared =
        rig_.ops->PrepareRows(x.data(), rows, cols, tasks[0].w->type, parts, scratch_.data());
    rig_.ops->MatMul(prepared, tasks);
  }
  void Norm(uint64_t rows) {
    rig_.ops->RmsNorm(x_.data(), norm_.data(), 1e-5f, rows, kHidden, n_.data());
  }
  void Attention(Layer& layer, std::span<const SequenceRows> sequences, uint64_t rows) {
    Ops& ops = *rig_.ops;
    const KvView kv{layer.pages.data(), kPageBytes,      kKvHeads,
                    kHeadDim,           scratch_.data(), scratch_.size()};
    Norm(rows);
    Multiply(n_, rows, kHidden, Qkv(layer));
    ops.RopeAndStore(q_.data(), k_.data(), v_.data(), kHeads, {.rope_dim = kHeadDim}, sequences,
                     kv);
    ops.Attention(q_.data(), kHeads, 0, sequences, kv, n_.data());
    Multiply(n_, rows, kHidden, {Task(layer.o, y_)});
    ops.Add(x_.data(), y_.data(), rows * kHidden, x_.data());
  }
  void Mlp(Layer& layer, uint64_t rows) {
    Ops& ops = *rig_.ops;
    Norm(rows);
    Multiply(n_, rows, kHidden, GateUp(layer));
    ops.SwiGlu(gate_.data(), up_.data(), rows * kFfn, gate_.data());
    Multiply(gate_, rows, kFfn, {Task(layer.down, y_)}, kDownInputParts);
    ops.Add(x_.data(), y_.data(), rows * kHidden, x_.data());
  }

  DType type_;
  BenchRig rig_;
  uint64_t weight_bytes_ = 0;
  std::vector<Layer> layers_;
  BenchMatrix embedding_;
  std::vector<float> norm_, x_, n_, q_, y_, k_, v_, gate_, up_, logits_;
  std::vector<std::byte> scratch_;
};

std::vector<int32_t> AllPages() {
  std::vector<int32_t> pages(kPages);
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i);
  return pages;
}

// One prompt of range(0) tokens from an empty context.
void Prefill(benchmark::State& state, DType type) {
  const auto tokens = static_cast<uint32_t>(state.range(0));
  Step step(type, static_cast<int>(state.range(1)), tokens);
  const std::vector<int32_t> pages = AllPages();
  const SequenceRows prompt{0, tokens, 0, pages.data()};
  ArithmeticProbe probe(step.rig(), ArithmeticOf(ActivationType::kInt8, type));
  std::vector<double> seconds, probe_rates;
  for (auto _ : state) {
    probe_rates.push_back(probe.OpsPerSecond() / 2);
    const double begin = SecondsNow();
    step.Run({&prompt, 1}, tokens, 1);
    seconds.push_back(SecondsNow() - begin);
    state.SetIterationTime(seconds.back());
  }
  state.counters["tokens/s"] = tokens / Median(seconds);
  constexpr double kProducts = kLayers * (2.0 * kHidden * (kHidden + kKv) + 3.0 * kHidden * kFfn);
  state.counters["share"] = kProducts * tokens / Median(seconds) / Median(probe_rates);
  state.SetLabel(step.name());
}

// range(0) sequences, each one token further at every step, from position range(2) on for
// kPageTokens positions and again.
void Decode(benchmark::State& state, DType type) {
  const auto batch = static_cast<uint32_t>(state.range(0));
  const auto context = static_cast<uint32_t>(state.range(2));
  Step step(type, static_cast<int>(state.range(1)), batch);
  ReadProbe probe(step.rig(), step.weight_bytes());
  const std::vector<int32_t> pages = AllPages();
  std::vector<SequenceRows> sequences;
  for (uint32_t i = 0; i < batch; ++i) sequences.push_back({i, 1, context, pages.data() + i});
  std::vector<double> seconds, probe_seconds;
  for (auto _ : state) {
    probe_seconds.push_back(probe.Seconds());
    const double begin = SecondsNow();
    step.Run(sequences, batch, batch);
    seconds.push_back(SecondsNow() - begin);
    state.SetIterationTime(seconds.back());
    for (SequenceRows& s : sequences) s.start = context + (s.start + 1 - context) % kPageTokens;
  }
  state.counters["tokens/s"] = batch / Median(seconds);
  state.counters["read_GB/s"] =
      static_cast<double>(step.weight_bytes()) / Median(probe_seconds) * 1e-9;
  state.counters["share"] = Median(probe_seconds) / Median(seconds);
  state.SetLabel(step.name());
}

const bool kRegistered = [] {
  for (DType type : {DType::kQ4_1, DType::kQ4_0, DType::kQ8_0, DType::kBF16}) {
    benchmark::RegisterBenchmark((std::string("Prefill/") + ToString(type)).c_str(), Prefill, type)
        ->ArgNames({"tokens", "threads"})
        ->Args({512, 1})
        ->Args({512, 0})
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark((std::string("Decode/") + ToString(type)).c_str(), Decode, type)
        ->ArgNames({"batch", "threads", "context"})
        ->Args({1, 1, 0})
        ->Args({1, 0, 0})
        ->Args({1, 0, 4000})
        ->Args({8, 0, 0})
        ->Args({32, 0, 0})
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace tandem
