#include <cuda_runtime.h>

#include <algorithm>

#include "engine/base/error.h"
#include "engine/device/cuda/handles.h"
#include "kernels/cuda/share_probe.h"

namespace tandem {
namespace {

// More than a second-level cache keeps.
constexpr size_t kMostBytes = size_t{512} << 20;
constexpr size_t kLeastBytes = size_t{64} << 20;
// Rounds that cover what the others' launches come late, before and after those that are timed.
constexpr int kMarginRounds = 3;
constexpr int kTimedRounds = 8;
constexpr long long kMostWaitNanos = 1'000'000'000;

__global__ void __launch_bounds__(256) ReadOnce(const uint4* from, size_t n, uint32_t* sink) {
  const size_t step = size_t{gridDim.x} * blockDim.x;
  uint32_t mix = 0;
  size_t i = size_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + 3 * step < n; i += 4 * step) {
    uint4 values[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) values[j] = __ldcs(from + i + j * step);
#pragma unroll
    for (int j = 0; j < 4; ++j) mix ^= values[j].x ^ values[j].y ^ values[j].z ^ values[j].w;
  }
  for (; i < n; i += step) mix ^= from[i].x ^ from[i].y ^ from[i].z ^ from[i].w;
  if (mix == 0x9e3779b9u) *sink = mix;  // keeps the loads
}

__global__ void MeetOthers(unsigned* arrived, unsigned all, unsigned* met) {
  atomicAdd(arrived, 1u);
  long long begin = 0, now = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
  do {
    if (*static_cast<volatile unsigned*>(arrived) == all) {
      atomicAdd(met, 1u);
      return;
    }
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  } while (now - begin < kMostWaitNanos);
}

__global__ void NoteMultiprocessor(uint32_t* seen, uint32_t most) {
  uint32_t sm = 0;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
  if (threadIdx.x == 0 && sm < most) seen[sm] = 1;
  // Long enough that blocks spread over all multiprocessors.
  for (int i = 0; i < 64; ++i) __nanosleep(1000);
}

struct FreeOnGpu {
  void operator()(void* data) const noexcept { cudaFree(data); }
};
using GpuMemoryHandle = std::unique_ptr<void, FreeOnGpu>;

GpuMemoryHandle Allocate(size_t bytes) {
  void* data = nullptr;
  CheckCuda(cudaMalloc(&data, bytes), "allocate memory for the probe of a GPU's parts");
  return GpuMemoryHandle(data);
}

// One part with its stream, what it reads and when.
struct Reader {
  CudaStream stream;
  GpuMemoryHandle memory;
  CudaEventHandle begin, end;
  unsigned blocks = 0;
};

void AskForReads(Reader& reader, size_t bytes, int rounds, uint32_t* sink) {
  for (int i = 0; i < rounds; ++i) {
    ReadOnce<<<reader.blocks, 256, 0, reader.stream.get()>>>(
        static_cast<const uint4*>(reader.memory.get()), bytes / sizeof(uint4), sink);
    CheckCuda(cudaGetLastError(), "launch the probe of a GPU's parts");
  }
}

void AskForTimedReads(Reader& reader, size_t bytes, uint32_t* sink) {
  AskForReads(reader, bytes, kMarginRounds, sink);
  CheckCuda(cudaEventRecord(reader.begin.get(), reader.stream.get()), "mark the probe's begin");
  AskForReads(reader, bytes, kTimedRounds, sink);
  CheckCuda(cudaEventRecord(reader.end.get(), reader.stream.get()), "mark the probe's end");
  AskForReads(reader, bytes, kMarginRounds, sink);
}

double RateOf(Reader& reader, size_t bytes) {
  CheckCuda(cudaStreamSynchronize(reader.stream.get()), "wait for the probe of a GPU's parts");
  float millis = 0;
  CheckCuda(cudaEventElapsedTime(&millis, reader.begin.get(), reader.end.get()), "time the probe");
  return static_cast<double>(bytes) * kTimedRounds / (std::max(millis, 1e-6f) * 1e-3);
}

CudaStream StreamOf(int gpu, GpuPart& part) {
  return CudaStream(static_cast<cudaStream_t>(part.MakeStream(false)), StreamDeleter{gpu});
}

}  // namespace

ShareBandwidth MeasureShares(int gpu, std::span<const std::shared_ptr<GpuPart>> parts) {
  OnDevice current(gpu);
  size_t free = 0, total = 0;
  CheckCuda(cudaMemGetInfo(&free, &total), "ask for free memory");
  const size_t bytes = std::clamp(free / (2 * parts.size()) / 4096 * 4096, kLeastBytes, kMostBytes);
  const GpuMemoryHandle sink = Allocate(sizeof(uint32_t));
  std::vector<Reader> readers;
  for (const auto& part : parts) {
    Reader& reader = readers.emplace_back();
    reader.stream = StreamOf(gpu, *part);
    reader.memory = Allocate(bytes);
    reader.begin = MakeTimedEvent(gpu);
    reader.end = MakeTimedEvent(gpu);
    reader.blocks = 8 * part->sm_count();
    CheckCuda(cudaMemsetAsync(reader.memory.get(), 0, bytes, reader.stream.get()), "clear");
    CheckCuda(cudaStreamSynchronize(reader.stream.get()), "clear");
  }
  auto* out = static_cast<uint32_t*>(sink.get());
  ShareBandwidth result;
  AskForTimedReads(readers[0], bytes, out);  // for clocks that rise, and code that is loaded
  RateOf(readers[0], bytes);
  AskForTimedReads(readers[0], bytes, out);
  result.alone = RateOf(readers[0], bytes);
  for (Reader& reader : readers) AskForTimedReads(reader, bytes, out);
  for (Reader& reader : readers) {
    const double rate = RateOf(reader, bytes);
    result.beside = result.beside == 0 ? rate : std::min(result.beside, rate);
  }
  return result;
}

bool PartsRunTogether(int gpu, std::span<const std::shared_ptr<GpuPart>> parts) {
  OnDevice current(gpu);
  const GpuMemoryHandle counts = Allocate(2 * sizeof(unsigned));
  auto* arrived = static_cast<unsigned*>(counts.get());
  std::vector<CudaStream> streams;
  for (const auto& part : parts) streams.push_back(StreamOf(gpu, *part));
  CheckCuda(cudaMemsetAsync(arrived, 0, 2 * sizeof(unsigned), streams[0].get()), "clear");
  CheckCuda(cudaStreamSynchronize(streams[0].get()), "clear");
  for (CudaStream& stream : streams) {
    MeetOthers<<<1, 1, 0, stream.get()>>>(arrived, static_cast<unsigned>(parts.size()),
                                          arrived + 1);
    CheckCuda(cudaGetLastError(), "launch kernels that wait for each other");
  }
  for (CudaStream& stream : streams) {
    CheckCuda(cudaStreamSynchronize(stream.get()), "wait for kernels that wait for each other");
  }
  unsigned met = 0;
  CheckCuda(
      cudaMemcpyAsync(&met, arrived + 1, sizeof met, cudaMemcpyDeviceToHost, streams[0].get()),
      "read who met");
  CheckCuda(cudaStreamSynchronize(streams[0].get()), "read who met");
  return met == parts.size();
}

std::vector<uint32_t> MultiprocessorsOf(int gpu, GpuPart& part) {
  constexpr uint32_t kMost = 1024;
  OnDevice current(gpu);
  const GpuMemoryHandle seen = Allocate(kMost * sizeof(uint32_t));
  const CudaStream stream = StreamOf(gpu, part);
  CheckCuda(cudaMemsetAsync(seen.get(), 0, kMost * sizeof(uint32_t), stream.get()), "clear");
  NoteMultiprocessor<<<16 * part.sm_count(), 64, 0, stream.get()>>>(
      static_cast<uint32_t*>(seen.get()), kMost);
  CheckCuda(cudaGetLastError(), "launch a look at multiprocessors");
  std::vector<uint32_t> flags(kMost);
  CheckCuda(cudaMemcpyAsync(flags.data(), seen.get(), kMost * sizeof(uint32_t),
                            cudaMemcpyDeviceToHost, stream.get()),
            "read multiprocessors");
  CheckCuda(cudaStreamSynchronize(stream.get()), "read multiprocessors");
  std::vector<uint32_t> numbers;
  for (uint32_t sm = 0; sm < kMost; ++sm) {
    if (flags[sm] != 0) numbers.push_back(sm);
  }
  return numbers;
}

}  // namespace tandem
