// What all steps so far add up to: time by phase and by device, bytes by link. All times are on the
// rig's timeline, and carry the engine's fidelity.
//
// The engine's thread adds; any thread reads. Both hold the lock for microseconds. Whoever makes
// one registers it with the engine.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "engine/base/device_name.h"
#include "engine/run/engine.h"

namespace tandem {

// "all_reduce", ...
std::string OpName(OpKind op);

class StepTotals final : public StepObserver {
 public:
  // One direction of a link, told apart by what moved the bytes.
  struct LinkKey {
    DeviceId src, dst;
    PathKind path = PathKind::kLocal;
    OpKind op = OpKind::kTransfer;
    auto operator<=>(const LinkKey&) const = default;
  };

  struct Phase {
    uint64_t steps = 0;
    uint64_t rows = 0;
    Nanos length, wall, link_busy, exposed_comm;
    std::vector<DeviceAttribution> devices;  // summed; in the rig's order
    std::map<LinkKey, uint64_t> bytes;
  };
  using Phases = std::array<Phase, 2>;  // prefill, decode

  void OnStep(const StepReport& report) override;
  Phases Read() const;

  static const char* PhaseName(size_t phase) { return phase == 0 ? "prefill" : "decode"; }

 private:
  mutable std::mutex mutex_;
  Phases phases_;  // guarded by mutex_
};

}  // namespace tandem
