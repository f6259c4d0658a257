// Times of a rig: curves, hops, exchanges and all-reduces. All in whole nanoseconds.
#include "engine/rig/rig.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "engine/base/check.h"

namespace tandem {
namespace {

// A staged copy moves in pieces of this size, so that both hops work at once.
constexpr uint64_t kStagingChunkBytes = uint64_t{512} << 10;

// Nominal figures for a machine that nobody has probed; see ThisMachineRig.
constexpr double kNominalMemoryBytesPerSecond = 10e9;
constexpr double kNominalFlops = 50e9;
constexpr double kNominalCopyBytesPerSecond = 5e9;

// y0 + (y1 - y0) * (x - x0) / (x1 - x0), rounded to nearest; x may lie outside [x0, x1].
Nanos Interpolate(const TimePoint& a, const TimePoint& b, Bytes bytes) {
  __int128 run = static_cast<__int128>(b.bytes.value) - static_cast<__int128>(a.bytes.value);
  __int128 rise = static_cast<__int128>(b.time.value) - static_cast<__int128>(a.time.value);
  __int128 along = static_cast<__int128>(bytes.value) - static_cast<__int128>(a.bytes.value);
  __int128 twice = 2 * rise * along + run;
  __int128 step = twice / (2 * run) - (twice % (2 * run) < 0 ? 1 : 0);
  return Nanos{a.time.value + static_cast<int64_t>(step)};
}

Bytes CeilDivide(uint64_t bytes, uint64_t by) { return Bytes{(bytes + by - 1) / by}; }

}  // namespace

Nanos TimeCurve::At(Bytes bytes) const {
  Check(points.size() >= 2, "TimeCurve: fewer than two points");
  if (bytes <= points.front().bytes) return points.front().time;
  size_t upper = 1;
  while (upper + 1 < points.size() && points[upper].bytes < bytes) ++upper;
  return Interpolate(points[upper - 1], points[upper], bytes);
}

Nanos Rig::HopTime(DeviceId src, DeviceId dst, Bytes bytes, MoveLaunch launch) const {
  if (bytes.value == 0 || src == dst) return Nanos{0};
  if (OnHost(src) && OnHost(dst) && src != dst) {
    // One memory: read once and written once, by the processor that is there.
    const DeviceSpec& cpu = devices[static_cast<size_t>(src.IsHost() ? dst.value : src.value)];
    if (cpu.on_host) {
      return NanosFromSeconds(2 * static_cast<double>(bytes.value) / cpu.memory_bytes_per_s);
    }
  }
  if (OnHost(src) || OnHost(dst)) return host_link.Sends(launch).At(bytes);
  return link.kind == LinkKind::kIdeal ? Nanos{0} : link.Sends(launch).At(bytes);
}

StagedTime Rig::StagedHopTime(Bytes bytes, MoveLaunch launch) const {
  if (bytes.value == 0 || link.kind == LinkKind::kIdeal) return StagedTime{};
  const TimeCurve& hops = host_link.Sends(launch);
  Nanos alone = hops.At(bytes);
  Nanos chunk = hops.At(Bytes{std::min(bytes.value, kStagingChunkBytes)});
  Nanos total = link.kind == LinkKind::kHostStaged ? link.Sends(launch).At(bytes) : alone + chunk;
  Nanos half{(total.value + 1) / 2};
  return StagedTime{std::clamp(alone, half, total), total};
}

Nanos Rig::ExchangeTime(uint32_t ranks, Bytes bytes, PathKind path, MoveLaunch launch) const {
  if (ranks < 2 || bytes.value == 0) return Nanos{0};
  // On a link that is not full duplex the two directions of each pair follow one another.
  Bytes through_port = bytes * (ranks - 1) * (link.full_duplex ? 1 : 2);
  if (ResolvePath(path) == PathKind::kHostStaged) return StagedHopTime(through_port, launch).total;
  return HopTime(DeviceId{0}, DeviceId{1}, through_port, launch);
}

Nanos Rig::AllReduceTime(uint32_t ranks, Bytes bytes, PathKind path, MoveLaunch launch) const {
  if (ranks < 2 || bytes.value == 0 || link.kind == LinkKind::kIdeal) return Nanos{0};
  PathKind resolved = ResolvePath(path);
  // The measured curve is of the link's own path: it says nothing about a detour through the host.
  const TimeCurve& curve = link.AllReduces(launch);
  bool measured = !curve.points.empty() &&
                  (resolved != PathKind::kHostStaged || ResolvePath(PathKind::kAuto) == resolved);
  if (measured) return curve.At(CeilDivide(bytes.value * 2 * (ranks - 1), ranks));
  if (ranks == 2) return ExchangeTime(2, bytes, resolved, launch);
  Nanos phase = ExchangeTime(ranks, CeilDivide(bytes.value, ranks), resolved, launch);
  return phase + phase;
}

Rig ThisMachineRig(uint32_t n) {
  Check(n >= 1, "ThisMachineRig: no devices");
  Rig rig;
  rig.name = "this-machine";
  rig.description = fmt::format("{} virtual CPU device{} of this machine", n, n == 1 ? "" : "s");
  rig.is_this_machine = true;
  long pages = sysconf(_SC_PHYS_PAGES);
  long page_bytes = sysconf(_SC_PAGESIZE);
  uint64_t memory = pages > 0 && page_bytes > 0
                        ? static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_bytes)
                        : uint64_t{1} << 30;
  rig.host_memory = Bytes{memory};
  const std::string source = "nominal, not probed; wall-clock runs on this machine do not use it";
  for (uint32_t i = 0; i < n; ++i) {
    DeviceSpec device;
    device.name = fmt::format("CPU {}", i);
    device.memory = Bytes{memory / n};
    device.memory_bytes_per_s = kNominalMemoryBytesPerSecond;
    device.flops = kNominalFlops;
    device.source = source;
    rig.devices.push_back(device);
  }
  LinkProfile local;
  local.name = "local";
  local.kind = LinkKind::kLocal;
  local.source = source;
  constexpr uint64_t kFar = uint64_t{1} << 30;
  local.send.points = {
      TimePoint{Bytes{0}, Nanos{1000}},
      TimePoint{Bytes{kFar},
                NanosFromSeconds(1e-6 + static_cast<double>(kFar) / kNominalCopyBytesPerSecond)}};
  rig.link = local;
  rig.host_link = local;
  return rig;
}

}  // namespace tandem
