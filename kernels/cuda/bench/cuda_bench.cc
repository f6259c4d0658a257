// Products, attention and row kernels of the CUDA back end on shapes of an 8B Llama: with few
// tokens as a share of a read probe, with many (by own kernels and by cuBLASLt) and for a prompt's
// attention as a share of cuBLAS's BF16 peak, each measured beside its probe in this process; row
// kernels as a share of the read probe too.
//
//   kernels_cuda_bench --benchmark_filter=FewTokens
#include <benchmark/benchmark.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/device/inventory.h"
#include "engine/model/quant_block.h"
#include "kernels/cuda/bench/probes.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/probe_kernels.h"
#include "kernels/cuda/runtime.h"

namespace tandem {
namespace {

constexpr uint64_t kRows = 14336, kCols = 4096;         // gate or up of the 8B shape
constexpr uint64_t kStreamBytes = uint64_t{512} << 20;  // beyond any cache
constexpr int kGemm = 8192;
constexpr int kRounds = 20;

class GpuMemory final : public Device {
 public:
  explicit GpuMemory(cudaStream_t stream) : Device(DeviceId{0}, "gpu", Bytes{0}), stream_(stream) {}

 private:
  std::byte* AllocateRaw(size_t size) override {
    void* data = nullptr;
    if (cudaMallocAsync(&data, size, stream_) != cudaSuccess) return nullptr;
    Check(cudaMemsetAsync(data, 0, size, stream_) == cudaSuccess, "bench: memset");
    return static_cast<std::byte*>(data);
  }
  void FreeRaw(std::byte* data, size_t) noexcept override { cudaFreeAsync(data, stream_); }
  cudaStream_t stream_;
};

// A GPU with ops, or the reason why there is none.
struct GpuRig {
  explicit GpuRig(ActivationType activations,
                  AttentionPrecision attention = AttentionPrecision::kSplit,
                  const LibraryRoom* library = nullptr) {
    const GpuInventory found = FindGpus();
    if (found.gpus.empty()) {
      missing = "no GPU: " + found.driver_message;
      return;
    }
    Check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess,
          "bench: stream");
    memory = std::make_unique<GpuMemory>(stream);
    CudaOpsOptions options{.stream = stream,
                           .activations = activations,
                           .attention = attention,
                           .memory = memory.get()};
    if (library != nullptr) {
      options.prefill_products = PrefillProducts::kCublasLt;
      options.library = *library;
    }
    try {
      ops = MakeCudaOps(options);
    } catch (const Error& error) {
      if (library == nullptr) throw;
      missing = error.what();
    }
  }
  ~GpuRig() {
    ops.reset();
    memory.reset();
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
  GpuRig(const GpuRig&) = delete;
  GpuRig& operator=(const GpuRig&) = delete;

  Buffer Room(uint64_t bytes) {
    return memory->Allocate(MemoryUse::kWorkspace, Bytes{bytes}, "bench");
  }
  Buffer Bring(const void* from, uint64_t bytes) {
    Buffer buffer = Room(bytes);
    Check(cudaMemcpyAsync(buffer.data(), from, bytes, cudaMemcpyHostToDevice, stream) ==
                  cudaSuccess &&
              cudaStreamSynchronize(stream) == cudaSuccess,
          "bench: copy");
    return buffer;
  }

  std::string missing;
  cudaStream_t stream = nullptr;
  std::unique_ptr<GpuMemory> memory;
  std::unique_ptr<Ops> ops;
};

// Random stored bytes with small finite scales, packed.
std::vector<std::byte> RandomWeights(Ops& ops, DType type, uint64_t rows, uint64_t cols) {
  std::mt19937_64 random(7);
  std::vector<std::byte> stored(rows * RowBytes(type, cols));
  const uint64_t block = Traits(type).block_bytes;
  const uint16_t scale = F32ToF16(0.01f);
  for (uint64_t at = 0; at < stored.size(); at += block) {
    if (!Traits(type).quantized) {
      const float value = static_cast<float>(random() >> 40) * 0x1p-24f - 0.5f;
      QuantizeRow(type, &value, &stored[at], 1);
      continue;
    }
    for (uint64_t i = 0; i < block; ++i) stored[at + i] = static_cast<std::byte>(random());
    std::memcpy(&stored[at + (type == DType::kQ6_K ? 208 : 0)], &scale, sizeof(scale));
    if (HasMinimum(type)) std::memcpy(&stored[at + 2], &scale, sizeof(scale));
  }
  const MatrixSlice slice{0, rows, 0, cols};
  std::vector<std::byte> packed(ops.PackedBytes(type, slice));
  PackedMatrix out{packed.data(), packed.size(), type, slice};
  ops.Pack(TensorView{stored.data(), type, rows, cols}, out);
  return packed;
}

std::vector<float> RandomRows(uint64_t n) {
  std::mt19937_64 random(9);
  std::vector<float> x(n);
  for (float& value : x) value = static_cast<float>(random() >> 40) * 0x1p-23f - 1.0f;
  return x;
}

double ReadBytesPerSecond(GpuRig& rig) {
  const Buffer memory = rig.Room(kStreamBytes);
  const Buffer sink = rig.Room(64);
  const int sms = cuda::ReadGpuFacts(0).sm_count;
  return static_cast<double>(kStreamBytes) / cuda::StreamSeconds(rig.stream, kRounds, [&] {
           cuda::LaunchReadProbe(memory.data(), kStreamBytes, sink.as<uint32_t>(), sms, rig.stream);
         });
}

double GemmPeak(GpuRig& rig) {
  const uint64_t elems = uint64_t{kGemm} * kGemm;
  const std::vector<float> values = RandomRows(elems);
  std::vector<uint16_t> narrow(elems);
  for (uint64_t i = 0; i < elems; ++i) narrow[i] = F32ToBF16(values[i]);
  const Buffer a = rig.Bring(narrow.data(), elems * 2), b = rig.Bring(narrow.data(), elems * 2);
  const Buffer c = rig.Room(elems * 4);
  return cuda::GemmOpsPerSecond(a.data(), b.data(), c.data(), kGemm, rig.stream);
}

// Seconds of one product of n rows, over copies of the matrix that no cache holds together.
double ProductSeconds(GpuRig& rig, DType type, uint64_t n) {
  const std::vector<std::byte> packed = RandomWeights(*rig.ops, type, kRows, kCols);
  std::vector<Buffer> copies;
  for (uint64_t held = 0; held < kStreamBytes; held += packed.size()) {
    copies.push_back(rig.Bring(packed.data(), packed.size()));
  }
  const Buffer x = rig.Bring(RandomRows(n * kCols).data(), n * kCols * sizeof(float));
  const Buffer y = rig.Room(n * kRows * sizeof(float));
  const Buffer scratch = rig.Room(rig.ops->PreparedBytes(n, kCols) + 64);
  const PreparedRows rows =
      rig.ops->PrepareRows(x.as<const float>(), n, kCols, type, Int8Parts::kOne, scratch.data());
  const double seconds = cuda::StreamSeconds(rig.stream, kRounds, [&] {
    for (const Buffer& copy : copies) {
      const PackedMatrix w{copy.data(), packed.size(), type, {0, kRows, 0, kCols}};
      const MatMulTask task{&w, w.slice, y.as<float>(), kRows};
      rig.ops->MatMul(rows, {&task, 1});
    }
  });
  return seconds / static_cast<double>(copies.size());
}

void FewTokens(benchmark::State& state, DType type) {
  GpuRig rig(ActivationType::kInt8);
  if (!rig.ops) return state.SkipWithError(rig.missing.c_str());
  const auto n = static_cast<uint64_t>(state.range(0));
  double rate = 0.0;
  for (auto _ : state) {
    const double seconds = ProductSeconds(rig, type, n);
    rate = static_cast<double>(kRows * RowBytes(type, kCols)) / seconds;
    state.SetIterationTime(seconds);
  }
  state.counters["GB/s"] = rate * 1e-9;
  state.counters["share"] = rate / ReadBytesPerSecond(rig);
  state.SetLabel(rig.ops->name());
}

void MeasureManyTokens(benchmark::State& state, DType type, GpuRig& rig) {
  if (!rig.ops) return state.SkipWithError(rig.missing.c_str());
  const auto n = static_cast<uint64_t>(state.range(0));
  double rate = 0.0;
  for (auto _ : state) {
    const double seconds = ProductSeconds(rig, type, n);
    rate = 2.0 * static_cast<double>(kRows * kCols * n) / seconds;
    state.SetIterationTime(seconds);
  }
  state.counters["Tops/s"] = rate * 1e-12;
  state.counters["share"] = rate / GemmPeak(rig);
  state.SetLabel(rig.ops->name());
}

void ManyTokens(benchmark::State& state, DType type) {
  GpuRig rig(ActivationType::kInt8);
  MeasureManyTokens(state, type, rig);
}

// By cuBLASLt, in calls of range(1) rows.
void ManyTokensCublasLt(benchmark::State& state, DType type) {
  const LibraryRoom library = LibraryRoomFor(static_cast<uint32_t>(state.range(1)));
  GpuRig rig(ActivationType::kInt8, AttentionPrecision::kSplit, &library);
  MeasureManyTokens(state, type, rig);
}

// 32 heads over 8, range(0) rows after a past of range(1) positions, range(2) dimensions.
void Attention(benchmark::State& state, AttentionPrecision precision) {
  GpuRig rig(ActivationType::kInt8, precision);
  if (!rig.ops) return state.SkipWithError(rig.missing.c_str());
  constexpr uint32_t kHeads = 32, kKvHeads = 8;
  const auto rows = static_cast<uint32_t>(state.range(0));
  const auto past = static_cast<uint32_t>(state.range(1));
  const auto head_dim = static_cast<uint32_t>(state.range(2));
  const uint32_t pages = (rows + past + kPageTokens - 1) / kPageTokens;
  const uint64_t elems = uint64_t{2} * kKvHeads * kPageTokens * head_dim, stride = elems * 2;
  const std::vector<float> values = RandomRows(elems);  // of every page
  std::vector<uint16_t> narrow(pages * elems);
  for (uint64_t i = 0; i < narrow.size(); ++i) narrow[i] = F32ToF16(values[i % elems]);
  const Buffer memory = rig.Bring(narrow.data(), pages * stride);
  const KvView kv{memory.data(), stride, kKvHeads, head_dim};
  std::vector<int32_t> list(pages);
  for (uint32_t i = 0; i < pages; ++i) list[i] = static_cast<int32_t>(i);
  const SequenceRows sequence{0, rows, past, list.data()};
  const uint64_t width = uint64_t{kHeads} * head_dim;
  const Buffer q = rig.Bring(RandomRows(rows * width).data(), rows * width * sizeof(float));
  const Buffer out = rig.Room(rows * width * sizeof(float));
  double seconds = 0.0;
  for (auto _ : state) {
    seconds = cuda::StreamSeconds(rig.stream, kRounds, [&] {
      rig.ops->Attention(q.as<const float>(), kHeads, 0, {&sequence, 1}, kv, out.as<float>());
    });
    state.SetIterationTime(seconds);
  }
  const double seen = rows * (past + (rows + 1) / 2.0);  // pairs of query and position, a head
  const double ops = 4.0 * seen * static_cast<double>(width);
  const double bytes = static_cast<double>(pages * stride);
  state.counters["Tops/s"] = ops / seconds * 1e-12;
  state.counters["GB/s"] = bytes / seconds * 1e-9;
  state.counters["share"] =
      rows > 1 ? ops / seconds / GemmPeak(rig) : bytes / seconds / ReadBytesPerSecond(rig);
}

// What is done row by row, over range(0) rows, beyond any cache where there are many: with one row
// it is the time of a launch. `floats`: read and written an element.
template <typename Body>
void RowOps(benchmark::State& state, uint64_t cols, double floats, const Body& body) {
  GpuRig rig(ActivationType::kInt8);
  if (!rig.ops) return state.SkipWithError(rig.missing.c_str());
  const auto n = static_cast<uint64_t>(state.range(0));
  const Buffer x = rig.Bring(RandomRows(n * cols).data(), n * cols * sizeof(float));
  const Buffer y = rig.Bring(RandomRows(n * cols).data(), n * cols * sizeof(float));
  const Buffer sum = rig.Room(n * cols * sizeof(float)), norm = rig.Room(n * cols * sizeof(float));
  const Buffer scratch = rig.Room(rig.ops->PreparedBytes(n, cols) + 64);
  double seconds = 0.0;
  for (auto _ : state) {
    seconds = cuda::StreamSeconds(rig.stream, kRounds,
                                  [&] { body(*rig.ops, x, y, sum, norm, scratch, n); });
    state.SetIterationTime(seconds);
  }
  const double rate = static_cast<double>(n * cols) * floats * sizeof(float) / seconds;
  state.counters["GB/s"] = rate * 1e-9;
  state.counters["share"] = rate / ReadBytesPerSecond(rig);
}

void AddNorm(benchmark::State& state) {
  RowOps(state, kCols, 4.0,
         [](Ops& ops, const Buffer& x, const Buffer& y, const Buffer& sum, const Buffer& norm,
            const Buffer&, uint64_t n) {
           ops.AddNorm(x.as<const float>(), y.as<const float>(), x.as<const float>(), 1e-5f, n,
                       kCols, sum.as<float>(), norm.as<float>());
         });
}
void PrepareSwiGlu(benchmark::State& state) {
  // Two f32 read, two int8 parts written.
  RowOps(state, kRows, 2.5 + 6.0 / 32.0,
         [](Ops& ops, const Buffer& x, const Buffer& y, const Buffer&, const Buffer&,
            const Buffer& scratch, uint64_t n) {
           ops.PrepareSwiGlu(x.as<float>(), y.as<const float>(), n, kRows, DType::kQ4_0,
                             Int8Parts::kTwo, scratch.data());
         });
}

const bool kRegistered = [] {
  for (DType type : {DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ4_K,
                     DType::kQ6_K, DType::kF16}) {
    const std::string name = ToString(type);
    benchmark::RegisterBenchmark(("FewTokens/" + name).c_str(), FewTokens, type)
        ->Arg(1)
        ->Arg(2)
        ->Arg(8)
        ->Arg(16)
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMicrosecond);
    if (type == DType::kF16) continue;
    benchmark::RegisterBenchmark(("ManyTokens/" + name).c_str(), ManyTokens, type)
        ->Arg(128)
        ->Arg(512)
        ->Arg(2048)
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMicrosecond);
    benchmark::RegisterBenchmark(("ManyTokensCublasLt/" + name).c_str(), ManyTokensCublasLt, type)
        ->ArgNames({"", "height"})
        ->Args({128, 256})
        ->Args({512, 512})
        ->Args({2048, 512})
        ->Args({2048, 1024})
        ->Args({2048, 2048})
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMicrosecond);
  }
  using Body = void (*)(benchmark::State&);
  for (const auto& [name, body] : {std::pair<const char*, Body>{"AddNorm", AddNorm},
                                   std::pair<const char*, Body>{"PrepareSwiGlu", PrepareSwiGlu}}) {
    benchmark::RegisterBenchmark(name, body)
        ->Arg(1)
        ->Arg(8192)
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMicrosecond);
  }
  for (AttentionPrecision precision : {AttentionPrecision::kSplit, AttentionPrecision::kHalf}) {
    const std::string name = std::string("Attention/") + ToString(precision);
    benchmark::RegisterBenchmark(name.c_str(), Attention, precision)
        ->ArgNames({"rows", "past", "dim"})
        ->Args({2048, 0, 128})
        ->Args({8192, 0, 128})
        ->Args({512, 4096, 128})
        ->Args({2048, 0, 64})
        ->Args({1, 4095, 128})
        ->Args({1, 32767, 128})
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMicrosecond);
  }
  return true;
}();

}  // namespace
}  // namespace tandem
