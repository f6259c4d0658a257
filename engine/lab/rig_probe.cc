#include "engine/lab/rig_probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "engine/base/error.h"
#include "engine/lab/device_figures.h"
#include "engine/lab/machine_facts.h"
#include "engine/lab/path_probe.h"
#include "engine/lab/stats.h"

namespace tandem {
namespace {

constexpr ProbeRounds kFullRounds{.warm_ups = 2, .rounds = 11};
constexpr ProbeRounds kQuickRounds{.warm_ups = 1, .rounds = 3};
constexpr uint64_t kPartOfMemory = 16;  // of a device or the host, the most that a message takes
constexpr int kLoadRounds = 20;         // of products, while clocks are read

class RigProbe {
 public:
  RigProbe(Backend& backend, const Rig& rig, const RigProbeOptions& options)
      : backend_(backend), rig_(rig), options_(options) {
    rig_.measured = nullptr;
    measured_.date = options.date;
    measured_.version = options.version;
    measured_.devices = options.devices;
    if (!rig.gpus.empty()) ids_ = BusIds(options.found, rig.gpus);
  }

  Rig Run() {
    const ProbeRounds rounds =
        options_.rounds.value_or(options_.quick ? kQuickRounds : kFullRounds);
    measured_.facts = FactsOfMachine(options_.found, Monitor());
    if (Monitor() != nullptr) Append(FactsOfGpus(options_.found, rig_.gpus, *Monitor()));
    const ProductSizes products =
        options_.products.value_or(DefaultProductSizes(*backend_.devices()[0]));
    measured_.figures = MeasureDevices(backend_, products, rounds, options_.progress);
    StopIfLost();
    if (Monitor() != nullptr) ReadClocks();
    MeasurePaths(rounds);
    StopIfLost();
    for (size_t d = 0; d < rig_.devices.size(); ++d) DescribeDevice(d);
    DescribeLink();
    DescribeHostLink();
    if (!options_.name.empty()) rig_.name = options_.name;
    rig_.description += fmt::format(", measured {}", options_.date);
    rig_.measured = std::make_shared<const RigMeasurements>(std::move(measured_));
    return std::move(rig_);
  }

 private:
  GpuMonitor* Monitor() const { return rig_.gpus.empty() ? nullptr : options_.monitor; }

  void Append(const std::vector<MachineFact>& facts) {
    measured_.facts.insert(measured_.facts.end(), facts.begin(), facts.end());
  }

  void StopIfLost() {
    if (!backend_.lost()) return;
    Fail(
        ErrorCode::kDevice,
        "rig probe: a device failed for good while it was measured; see tandem rig test, and start "
        "anew");
  }

  std::string Source(const std::string& what) const {
    return fmt::format("measured {} by tandem {} (rig probe): {}", options_.date, options_.version,
                       what);
  }

  // Clocks and power while each device multiplies.
  void ReadClocks() {
    for (size_t d = 0; d < backend_.devices().size(); ++d) {
      try {
        const std::unique_ptr<DeviceProbe> probe = backend_.MakeProbe(d);
        if (probe == nullptr) continue;
        for (int i = 0; i < kLoadRounds; ++i) probe->Ask(DeviceMeasure::kProductBf16);
        const GpuState state = Monitor()->State(ids_[d]);
        probe->Take();
        Append(ClockFacts(fmt::format("d{}", d), state));
      } catch (const Error& error) {
        measured_.facts.push_back({fmt::format("d{}", d), "clocks under load", "", error.what()});
      }
    }
  }

  void MeasurePaths(const ProbeRounds& rounds) {
    uint64_t room = backend_.host().ledger().capacity().value;
    for (const auto& device : backend_.devices()) {
      const uint64_t capacity = device->ledger().capacity().value;
      if (capacity > 0) room = room > 0 ? std::min(room, capacity) : capacity;
    }
    const Bytes most{room > 0 ? std::min(options_.largest_message.value, room / kPartOfMemory)
                              : options_.largest_message.value};
    const std::vector<Bytes> sizes = ProbeSizes(options_.quick, most);
    if (sizes.size() < 2) {
      Fail(ErrorCode::kDevice,
           fmt::format("rig probe: devices with room for {} bytes are too small to measure paths "
                       "(want {} or more)",
                       room, 2 * kPartOfMemory * 64));
    }
    MessageClock clock(backend_, sizes.back());
    measured_.paths = ProbePaths(backend_, rig_, clock, sizes, rounds, options_.progress);
    StopIfLost();
    if (Monitor() == nullptr) return NoCounters("CPU devices have no counters of their bytes");
    ReadSlots(clock, sizes.back());
    CheckPaths(clock, sizes.back());
  }

  // The slot while bytes come through it: idle ones save power at a lower speed.
  void ReadSlots(MessageClock& clock, Bytes message) {
    const auto transport = backend_.MakeHostTransport(rig_.HostPath());
    for (size_t d = 0; d < backend_.devices().size(); ++d) {
      clock.AskFromHost(*transport, d, message, Repeats(message, options_.least_checked.value));
      const GpuState state = Monitor()->State(ids_[d]);
      clock.Finish();
      Append(SlotFacts(fmt::format("d{}", d), state));
    }
  }

  static uint32_t Repeats(Bytes message, uint64_t bytes) {
    return static_cast<uint32_t>((bytes + message.value - 1) / message.value);
  }

  void NoCounter(const MeasuredPath& path, const std::string& why) {
    measured_.counters.push_back(CounterCheck{.path = path.path,
                                              .what = path.what,
                                              .counter = "any",
                                              .booked = {},
                                              .counted = {},
                                              .tolerance = 0,
                                              .verdict = CounterVerdict::kNotAvailable,
                                              .why = why});
  }

  void NoCounters(const std::string& why) {
    for (const MeasuredPath& path : measured_.paths) {
      if (!path.points.empty() && IsOneWay(path)) NoCounter(path, why);
    }
  }

  bool IsOneWay(const MeasuredPath& path) const {
    for (const auto& [src, dst] : ProbePairs(rig_.size())) {
      if (path.what == OneWayName(src, dst)) return true;
    }
    return false;
  }

  void CheckPaths(MessageClock& clock, Bytes message) {
    const uint32_t repeats = Repeats(message, options_.least_checked.value);
    for (const MeasuredPath& path : std::vector(measured_.paths)) {
      for (const auto& [src, dst] : ProbePairs(rig_.size())) {
        if (path.points.empty() || path.what != OneWayName(src, dst)) continue;
        CheckPath(clock, path, src, dst, message, repeats);
      }
    }
    const PathKind host = rig_.HostPath();
    const auto transport = backend_.MakeHostTransport(host);
    for (size_t d = 0; d < rig_.size(); ++d) {
      const CounterUse use{host, FromHostName(d), ids_[d], fmt::format("d{}", d),
                           GpuCounter::kPcieReceived};
      Check({use}, [&] {
        const Bytes booked = clock.AskFromHost(*transport, d, message, repeats);
        clock.Finish();
        return booked;
      });
    }
  }

  void CheckPath(MessageClock& clock, const MeasuredPath& path, size_t src, size_t dst,
                 Bytes message, uint32_t repeats) {
    const std::vector<CounterUse> uses = CountersOf(rig_, path.path, src, dst, ids_);
    if (uses.empty()) {
      return NoCounter(path, "one GPU stands for both devices: nothing crosses a link");
    }
    const auto transport = backend_.MakeTransport(path.path);
    clock.AskOneWay(*transport, src, dst, message, 1);  // opens what the path opens when first used
    clock.Finish();
    Check(uses, [&] {
      const Bytes booked = clock.AskOneWay(*transport, src, dst, message, repeats);
      clock.Finish();
      if (const auto failure = transport->TakeFailure()) Fail(ErrorCode::kDevice, failure->what);
      return booked;
    });
  }

  void Check(const std::vector<CounterUse>& uses, const std::function<Bytes()>& move) {
    for (CounterCheck& check : CheckCounters(*Monitor(), uses, move, options_.settle)) {
      measured_.counters.push_back(std::move(check));
    }
  }

  // Why a figure is missing.
  std::string WhyNot(int32_t device, const std::string& what) const {
    for (const MeasuredFigure& figure : measured_.figures) {
      if (figure.device == device && figure.what == what) return figure.absent;
    }
    return "not measured";
  }

  void DescribeDevice(size_t d) {
    DeviceSpec& spec = rig_.devices[d];
    const auto id = static_cast<int32_t>(d);
    const std::string roof = NameOf(ProductRoof(*backend_.devices()[d]));
    std::string source;
    // Takes a figure where it was measured; says which it is either way.
    const auto take = [&](const std::string& what, const char* key) -> const MeasuredFigure* {
      const MeasuredFigure* figure = FindFigure(measured_, id, what);
      if (!source.empty()) source += "; ";
      source += figure != nullptr
                    ? fmt::format("{}: {}, {:.4g} {} ({:.4g} to {:.4g}, {} runs)", key, what,
                                  figure->value.median, figure->unit, figure->value.low,
                                  figure->value.high, figure->value.runs)
                    : fmt::format("{}: nominal, for: {}", key, WhyNot(id, what));
      return figure;
    };
    const MeasuredFigure* read = take(kMemoryRead, "memory_gb_per_s");
    const MeasuredFigure* peak = take(roof, "tflops");
    const MeasuredFigure* decode = take(kDecodeRead, "memory_efficiency");
    const MeasuredFigure* prefill = take(kPrefillProducts, "compute_efficiency");
    const MeasuredFigure* gap = take(kLaunchEager, "launch_gap_us");
    const MeasuredFigure* replay = nullptr;  // where nothing is recorded there is none
    if (FindFigure(measured_, id, kLaunchGraph) != nullptr) {
      replay = take(kLaunchGraph, "replay_gap_us");
    }
    if (read != nullptr) spec.memory_bytes_per_s = read->value.median * 1e9;
    if (peak != nullptr) spec.flops = peak->value.median * 1e12;
    if (read != nullptr && decode != nullptr) {
      spec.memory_efficiency = Efficiency(decode->value.median / read->value.median);
    }
    if (peak != nullptr && prefill != nullptr) {
      spec.compute_efficiency = Efficiency(prefill->value.median / peak->value.median);
    }
    if (gap != nullptr) spec.launch_gap = NanosFromSeconds(gap->value.median * 1e-6);
    if (replay != nullptr) spec.replay_gap = NanosFromSeconds(replay->value.median * 1e-6);
    spec.source = Source(source);
    if (!backend_.devices()[d]->works_alone() && rig_.size() > 1) {
      spec.source += fmt::format(
          "; {} devices take turns on one team of threads, and each is given "
          "its part of the rates",
          rig_.size());
    }
  }

  // The bounds of a rig file.
  static double Efficiency(double share) { return std::clamp(share, 0.01, 1.0); }

  std::vector<const MeasuredPath*> PathsNamed(PathKind path,
                                              const std::vector<std::string>& names) {
    std::vector<const MeasuredPath*> found;
    for (const MeasuredPath& measured : measured_.paths) {
      const bool named = std::find(names.begin(), names.end(), measured.what) != names.end();
      if (measured.path == path && named && measured.points.size() >= 2) found.push_back(&measured);
    }
    return found;
  }

  // Of a size moved both ways at once, in little more time than one way.
  static bool IsFullDuplex(const std::vector<const MeasuredPath*>& one_way,
                           const std::vector<const MeasuredPath*>& both) {
    if (one_way.empty() || both.empty()) return true;
    constexpr double kHalfWay = 1.5;
    const double alone = one_way.front()->points.back().micros.median;
    return both.front()->points.back().micros.median < kHalfWay * alone;
  }

  using Paths = std::vector<const MeasuredPath*>;

  // One curve for what was asked one by one, and one for replays where some were measured.
  static void SetCurves(const Paths& eager, const Paths& replayed, TimeCurve& curve,
                        TimeCurve& replayed_curve) {
    curve = eager.empty() ? TimeCurve{} : CurveOf(eager);
    replayed_curve = eager.empty() || replayed.empty() ? TimeCurve{} : CurveOf(replayed);
  }

  static const char* Launches(const Paths& replayed) {
    return replayed.empty() ? "" : ", asked one by one and replayed";
  }

  // The path that auto means, or else the first that could be measured.
  void DescribeLink() {
    const auto one_ways = [&](LaunchMode launch) {
      std::vector<std::string> names;
      for (const auto& [src, dst] : ProbePairs(rig_.size())) {
        names.push_back(OneWayName(src, dst, launch));
      }
      return names;
    };
    std::vector<PathKind> candidates{rig_.ResolvePath(PathKind::kAuto)};
    for (const MeasuredPath& path : measured_.paths) candidates.push_back(path.path);
    for (PathKind path : candidates) {
      const Paths one_way = PathsNamed(path, one_ways(LaunchMode::kEager));
      if (one_way.empty()) continue;
      const Paths replayed = PathsNamed(path, one_ways(LaunchMode::kGraph));
      rig_.link.name = fmt::format("{}-measured", ToString(path));
      if (!rig_.gpus.empty() && path == PathKind::kHostStaged) {
        rig_.link.kind = LinkKind::kHostStaged;
      }
      SetCurves(one_way, replayed, rig_.link.send, rig_.link.send_replayed);
      SetCurves(PathsNamed(path, {AllReduceName(0, 1)}),
                PathsNamed(path, {AllReduceName(0, 1, LaunchMode::kGraph)}), rig_.link.all_reduce,
                rig_.link.all_reduce_replayed);
      rig_.link.full_duplex = IsFullDuplex(one_way, PathsNamed(path, {BothWaysName(0, 1)}));
      rig_.link.source = Source(fmt::format(
          "path {}, medians over {} directions{}; all-reduce: one-shot, f32, adding included",
          ToString(path), one_way.size(), Launches(replayed)));
      return;
    }
    rig_.link.source +=
        rig_.size() > 1 ? "; no path could be measured" : "; one device has no link";
  }

  void DescribeHostLink() {
    const PathKind path = rig_.HostPath();
    const auto from_host = [&](LaunchMode launch) {
      std::vector<std::string> names;
      for (size_t d = 0; d < rig_.size(); ++d) names.push_back(FromHostName(d, launch));
      return PathsNamed(path, names);
    };
    const Paths one_way = from_host(LaunchMode::kEager), replayed = from_host(LaunchMode::kGraph);
    if (one_way.empty()) return;
    rig_.host_link.name = fmt::format("host-{}-measured", ToString(path));
    SetCurves(one_way, replayed, rig_.host_link.send, rig_.host_link.send_replayed);
    rig_.host_link.full_duplex = IsFullDuplex(one_way, PathsNamed(path, {"host and d0 at once"}));
    rig_.host_link.source = Source(
        fmt::format("path {} from the host's {}memory, medians over {} devices{}", ToString(path),
                    rig_.gpus.empty() ? "" : "page-locked ", one_way.size(), Launches(replayed)));
  }

  Backend& backend_;
  Rig rig_;
  const RigProbeOptions& options_;
  RigMeasurements measured_;
  std::vector<std::string> ids_;  // PCI bus ids by device
};

}  // namespace

TimeCurve CurveOf(const std::vector<const MeasuredPath*>& paths) {
  TimeCurve curve;
  for (size_t i = 0; i < paths.front()->points.size(); ++i) {
    std::vector<double> micros;
    for (const MeasuredPath* path : paths) micros.push_back(path->points[i].micros.median);
    curve.points.push_back(
        TimePoint{paths.front()->points[i].bytes, NanosFromSeconds(Median(micros) * 1e-6)});
  }
  for (size_t i = curve.points.size() - 1; i > 0; --i) {
    curve.points[i - 1].time = std::min(curve.points[i - 1].time, curve.points[i].time);
  }
  return curve;
}

Rig ProbeRig(Backend& backend, const Rig& rig, const RigProbeOptions& options) {
  return RigProbe(backend, rig, options).Run();
}

}  // namespace tandem
