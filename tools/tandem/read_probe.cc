#include "tools/tandem/read_probe.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <new>

#include "kernels/cpu/probe_loops.h"

namespace tandem {
namespace {

constexpr size_t kGrain = 4096;  // shares are multiples of it, as the probe's loop wants

}  // namespace

void ReadProbe::Free::operator()(std::byte* memory) const {
  ::operator delete[](memory, std::align_val_t{kGrain});
}

ReadProbe::ReadProbe(int threads, size_t bytes)
    : pool_({.threads = threads}),
      share_((bytes / static_cast<size_t>(pool_.threads()) / kGrain + 1) * kGrain),
      memory_(static_cast<std::byte*>(::operator new[](share_* static_cast<size_t>(pool_.threads()),
                                                       std::align_val_t{kGrain}))) {
  // Pages exist once written.
  pool_.Run([&](int thread, int) {
    std::memset(memory_.get() + static_cast<size_t>(thread) * share_, thread + 1, share_);
  });
}

double ReadProbe::BytesPerSecond() {
  const ProbeLoops loops = BestProbeLoops(ArithmeticKind::kInt8);
  std::atomic<uint64_t> sink{0};  // keeps the loop's result alive
  const auto start = std::chrono::steady_clock::now();
  pool_.Run([&](int thread, int) {
    sink.fetch_add(loops.read(memory_.get() + static_cast<size_t>(thread) * share_, share_),
                   std::memory_order_relaxed);
  });
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return static_cast<double>(share_) * pool_.threads() / took.count();
}

}  // namespace tandem
