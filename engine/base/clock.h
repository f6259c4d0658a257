// Time as the engine sees it. Schedulers, workloads and metrics read one Clock: the wall clock when
// results are measured, a virtual clock when op times are laid on a rig's timeline. Both count
// nanoseconds from their own start; points of two clocks are never compared.
#pragma once

#include <atomic>

#include "engine/base/units.h"

namespace tandem {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Nanos Now() const = 0;
  virtual bool IsVirtual() const = 0;
};

// Monotonic wall-clock time since construction.
class WallClock final : public Clock {
 public:
  WallClock();
  Nanos Now() const override;
  bool IsVirtual() const override { return false; }

 private:
  int64_t origin_ns_;
};

// Time that moves only when told to. One thread advances it (the engine's); any may read.
class VirtualClock final : public Clock {
 public:
  Nanos Now() const override { return Nanos{now_ns_.load(std::memory_order_acquire)}; }
  bool IsVirtual() const override { return true; }
  // Moves to `when` if that is later than now; time never runs backwards.
  void AdvanceTo(Nanos when);

 private:
  std::atomic<int64_t> now_ns_{0};
};

}  // namespace tandem
