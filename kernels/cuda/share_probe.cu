#include <cuda_runtime.h>

#include <algorithm>
#include <memory>

#include "engine/device/cuda/cuda_device.h"
#include "engine/device/cuda/handles.h"
#include "kernels/cuda/probe_kernels.h"
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

// A part as a device with all the memory that it asks for.
struct Prober {
  std::unique_ptr<Device> device;
  Buffer memory;
  std::unique_ptr<DeviceEvent> begin, end;
  int sms = 0;

  DeviceQueue& queue() { return *device->queue(QueueRole::kCompute); }
  cudaStream_t stream() { return static_cast<cudaStream_t>(queue().native()); }
};

Prober MakeProber(int gpu, const std::shared_ptr<GpuPart>& part, size_t bytes) {
  Prober prober;
  prober.device = MakeCudaDevice(DeviceId{0}, gpu, Bytes{}, part);
  prober.memory = prober.device->Allocate(MemoryUse::kWorkspace, Bytes{bytes}, "probe of a part");
  prober.begin = prober.queue().MakeEvent();
  prober.end = prober.queue().MakeEvent();
  prober.sms = static_cast<int>(part->sm_count());
  return prober;
}

// The first bytes of the memory are where nothing is ever written.
void AskForReads(Prober& reader, int rounds) {
  for (int i = 0; i < rounds; ++i) {
    cuda::LaunchReadProbe(reader.memory.data(), reader.memory.size(), reader.memory.as<uint32_t>(),
                          reader.sms, reader.stream());
  }
}

void AskForTimedReads(Prober& reader) {
  AskForReads(reader, kMarginRounds);
  reader.queue().Mark(*reader.begin);
  AskForReads(reader, kTimedRounds);
  reader.queue().Mark(*reader.end);
  AskForReads(reader, kMarginRounds);
}

double RateOf(Prober& reader) {
  reader.queue().Finish();
  const double seconds = reader.end->Since(*reader.begin).Seconds();
  return static_cast<double>(reader.memory.size()) * kTimedRounds / std::max(seconds, 1e-9);
}

}  // namespace

ShareBandwidth MeasureShares(int gpu, std::span<const std::shared_ptr<GpuPart>> parts) {
  const OnDevice current(gpu);
  const size_t room = ReadGpuMemory(gpu).free.value / (2 * parts.size()) / 4096 * 4096;
  std::vector<Prober> readers;
  for (const auto& part : parts) {
    readers.push_back(MakeProber(gpu, part, std::clamp(room, kLeastBytes, kMostBytes)));
  }
  ShareBandwidth result;
  AskForTimedReads(readers[0]);  // for clocks that rise, and code that is loaded
  RateOf(readers[0]);
  AskForTimedReads(readers[0]);
  result.alone = RateOf(readers[0]);
  for (Prober& reader : readers) AskForTimedReads(reader);
  for (Prober& reader : readers) {
    const double rate = RateOf(reader);
    result.beside = result.beside == 0 ? rate : std::min(result.beside, rate);
  }
  return result;
}

bool PartsRunTogether(int gpu, std::span<const std::shared_ptr<GpuPart>> parts) {
  const OnDevice current(gpu);
  std::vector<Prober> waiters;
  for (const auto& part : parts) waiters.push_back(MakeProber(gpu, part, 2 * sizeof(unsigned)));
  auto* arrived = waiters[0].memory.as<unsigned>();  // zero when it is new
  for (Prober& waiter : waiters) {
    MeetOthers<<<1, 1, 0, waiter.stream()>>>(arrived, static_cast<unsigned>(parts.size()),
                                             arrived + 1);
    CheckCuda(cudaGetLastError(), "launch kernels that wait for each other");
  }
  for (Prober& waiter : waiters) waiter.queue().Finish();
  unsigned met = 0;
  waiters[0].device->Download(reinterpret_cast<std::byte*>(&met),
                              reinterpret_cast<const std::byte*>(arrived + 1), sizeof met);
  return met == parts.size();
}

std::vector<uint32_t> MultiprocessorsOf(int gpu, const std::shared_ptr<GpuPart>& part) {
  constexpr uint32_t kMost = 1024;
  const OnDevice current(gpu);
  Prober prober = MakeProber(gpu, part, kMost * sizeof(uint32_t));
  NoteMultiprocessor<<<16 * prober.sms, 64, 0, prober.stream()>>>(prober.memory.as<uint32_t>(),
                                                                    kMost);
  CheckCuda(cudaGetLastError(), "launch a look at multiprocessors");
  prober.queue().Finish();
  std::vector<uint32_t> seen(kMost);
  prober.device->Download(reinterpret_cast<std::byte*>(seen.data()), prober.memory.data(),
                          kMost * sizeof(uint32_t));
  std::vector<uint32_t> numbers;
  for (uint32_t sm = 0; sm < kMost; ++sm) {
    if (seen[sm] != 0) numbers.push_back(sm);
  }
  return numbers;
}

}  // namespace tandem
