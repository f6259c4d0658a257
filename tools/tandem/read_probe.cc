#include "tools/tandem/read_probe.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "engine/device/cpu/slabs.h"
#include "kernels/cpu/probe_loops.h"

namespace tandem {
namespace {

constexpr size_t kGrain = 4096;  // shares are multiples of it, as the probe's loop wants

}  // namespace

void ReadProbe::Free::operator()(std::byte* memory) const { std::free(memory); }

ReadProbe::ReadProbe(int threads, size_t bytes)
    : pool_({.threads = threads}),
      share_((bytes / static_cast<size_t>(pool_.threads()) / kGrain + 1) * kGrain),
      memory_(AllocateHuge(share_ * static_cast<size_t>(pool_.threads()))) {
  if (memory_ == nullptr) throw std::bad_alloc();
  // Pages exist once written.
  pool_.Run([&](int thread, int) {
    std::memset(memory_.get() + static_cast<size_t>(thread) * share_, thread + 1, share_);
  });
}

double ReadProbe::BytesPerSecond() {
  const ProbeLoops loops = BestProbeLoops(ArithmeticKind::kInt8);
  std::atomic<uint64_t> sink{0};  // keeps the loop's result alive
  pool_.Run([](int, int) {});     // wakes the team, as a step's is awake
  const auto start = std::chrono::steady_clock::now();
  pool_.Run([&](int thread, int) {
    sink.fetch_add(loops.read(memory_.get() + static_cast<size_t>(thread) * share_, share_),
                   std::memory_order_relaxed);
  });
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return static_cast<double>(share_) * pool_.threads() / took.count();
}

}  // namespace tandem
