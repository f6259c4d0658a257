// The bytes that transports book, held against those that the GPUs' own counters count meanwhile:
// NVLink's payload within 2 %, PCIe's bytes, which include the headers of packets, within 10 %.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/device/gpu_monitor.h"
#include "engine/lab/message_clock.h"
#include "engine/rig/measurements.h"

namespace tandem {

inline constexpr double kNvlinkTolerance = 0.02;
inline constexpr double kPcieTolerance = 0.10;
inline constexpr Bytes kLeastChecked{uint64_t{1} << 30};

struct CounterUse {
  PathKind path = PathKind::kCopy;
  std::string what;  // "d0 to d1"
  std::string gpu;   // PCI bus id
  std::string of;    // "d0"
  GpuCounter counter = GpuCounter::kPcieSent;
};

// Measured where the counter rose by `booked` within its tolerance, a mismatch where it did not. A
// PCIe counter may have wrapped once.
CounterCheck CompareWithCounter(const CounterUse& use, Bytes booked,
                                const Reading<uint64_t>& before, const Reading<uint64_t>& after);

// Calls `move`, which moves kLeastChecked or more and gives the bytes booked, between readings of
// the counters. Counters may lag: `settle` waits a moment, and is called again (some fifty times at
// most) while one is short of what was booked.
std::vector<CounterCheck> CheckCounters(GpuMonitor& monitor, const std::vector<CounterUse>& uses,
                                        const std::function<Bytes()>& move,
                                        const std::function<void()>& settle);

// Which counters a message between two devices runs through. None where nothing crosses a link (a
// GPU stands for both).
std::vector<CounterUse> CountersOf(const Rig& rig, PathKind path, size_t src, size_t dst,
                                   const std::vector<std::string>& bus_ids);

}  // namespace tandem
