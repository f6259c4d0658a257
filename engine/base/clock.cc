#include "engine/base/clock.h"

#include <chrono>

namespace tandem {
namespace {

int64_t SteadyNanos() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

WallClock::WallClock() : origin_ns_(SteadyNanos()) {}

Nanos WallClock::Now() const { return Nanos{SteadyNanos() - origin_ns_}; }

void VirtualClock::AdvanceTo(Nanos when) {
  if (when.value > now_ns_.load(std::memory_order_relaxed)) {
    now_ns_.store(when.value, std::memory_order_release);
  }
}

}  // namespace tandem
