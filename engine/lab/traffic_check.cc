#include "engine/lab/traffic_check.h"

#include <fmt/format.h>

#include <cmath>

#include "engine/lab/path_probe.h"

namespace tandem {
namespace {

constexpr uint64_t kWrap = uint64_t{1} << 32;
constexpr int kMostWaits = 50;

bool IsNvlink(GpuCounter counter) {
  return counter == GpuCounter::kNvlinkSent || counter == GpuCounter::kNvlinkReceived;
}

double ToleranceOf(GpuCounter counter) {
  return IsNvlink(counter) ? kNvlinkTolerance : kPcieTolerance;
}

uint64_t RiseOf(GpuCounter counter, uint64_t before, uint64_t after) {
  if (after >= before) return after - before;
  return !IsNvlink(counter) && before < kWrap ? after + kWrap - before : 0;
}

}  // namespace

CounterCheck CompareWithCounter(const CounterUse& use, Bytes booked,
                                const Reading<uint64_t>& before, const Reading<uint64_t>& after) {
  CounterCheck check{.path = use.path,
                     .what = use.what,
                     .counter = fmt::format("{} of {}", ToString(use.counter), use.of),
                     .booked = booked,
                     .counted = {},
                     .tolerance = ToleranceOf(use.counter),
                     .verdict = CounterVerdict::kNotAvailable,
                     .why = {}};
  if (!before || !after) {
    check.why = before ? after.why() : before.why();
    return check;
  }
  check.counted = Bytes{RiseOf(use.counter, *before, *after)};
  const double want = static_cast<double>(booked.value);
  const double off = std::abs(static_cast<double>(check.counted.value) - want);
  check.verdict =
      off <= check.tolerance * want ? CounterVerdict::kMeasured : CounterVerdict::kMismatch;
  return check;
}

std::vector<CounterCheck> CheckCounters(GpuMonitor& monitor, const std::vector<CounterUse>& uses,
                                        const std::function<Bytes()>& move,
                                        const std::function<void()>& settle) {
  std::vector<CounterCheck> checks;
  std::vector<Reading<uint64_t>> before;
  settle();
  bool any = false;
  for (const CounterUse& use : uses) {
    before.push_back(monitor.Count(use.gpu, use.counter));
    any = any || before.back();
  }
  const Bytes booked = any ? move() : Bytes{};
  for (int waits = 0; waits < kMostWaits; ++waits) {
    if (any) settle();
    checks.clear();
    bool short_of = false;
    for (size_t i = 0; i < uses.size(); ++i) {
      checks.push_back(
          CompareWithCounter(uses[i], booked, before[i],
                             before[i] ? monitor.Count(uses[i].gpu, uses[i].counter) : before[i]));
      short_of = short_of || (checks.back().verdict == CounterVerdict::kMismatch &&
                              checks.back().counted < booked);
    }
    if (!short_of) break;
  }
  return checks;
}

std::vector<CounterUse> CountersOf(const Rig& rig, PathKind path, size_t src, size_t dst,
                                   const std::vector<std::string>& bus_ids) {
  const bool staged = path == PathKind::kHostStaged;
  if (bus_ids[src] == bus_ids[dst] && !staged) return {};
  const bool nvlink = rig.link.kind == LinkKind::kNvlink && !staged;
  const std::string what = OneWayName(src, dst);
  return {CounterUse{path, what, bus_ids[src], fmt::format("d{}", src),
                     nvlink ? GpuCounter::kNvlinkSent : GpuCounter::kPcieSent},
          CounterUse{path, what, bus_ids[dst], fmt::format("d{}", dst),
                     nvlink ? GpuCounter::kNvlinkReceived : GpuCounter::kPcieReceived}};
}

}  // namespace tandem
