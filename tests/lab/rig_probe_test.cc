// The probe of a rig: on CPU devices, and on fake devices that pose as GPUs with a driver of their
// own. What it writes loads again and can be priced; what cannot be had is listed with its reason.
#include "engine/lab/rig_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "engine/base/error.h"
#include "engine/lab/device_figures.h"
#include "engine/lab/path_probe.h"
#include "engine/lab/stats.h"
#include "tests/support/fake_machine.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(RunInTurnTest, TakesOneOfEachARoundAfterTheWarmUp) {
  std::string order;
  const auto arm = [&](char name) {
    return ProbeArm{std::string(1, name),
                    [&order, name] {
                      order += name;
                      return std::vector<double>{double(order.size()), 1};
                    },
                    {},
                    {}};
  };
  std::vector<ProbeArm> arms{arm('a'), arm('b')};
  size_t last = 0;
  RunInTurn(arms, {.warm_ups = 1, .rounds = 2}, [&](size_t done, size_t total, std::string_view) {
    EXPECT_EQ(total, 6u);
    last = done;
  });
  EXPECT_EQ(order, "ababab");
  EXPECT_EQ(last, 6u);
  EXPECT_THAT(arms[1].series[0], ElementsAre(4, 6));
}

TEST(RunInTurnTest, AnArmThatFailsIsLeftOutWithItsReason) {
  int calls = 0;
  std::vector<ProbeArm> arms{{"bad",
                              [&]() -> std::vector<double> {
                                if (++calls == 3) Fail(ErrorCode::kDevice, "it broke");
                                return {1};
                              },
                              {},
                              {}},
                             {"good", [] { return std::vector<double>{2}; }, {}, {}}};
  RunInTurn(arms, {.warm_ups = 1, .rounds = 5}, {});
  EXPECT_EQ(calls, 3);
  EXPECT_THAT(arms[0].failed, HasSubstr("it broke"));
  EXPECT_TRUE(arms[0].series.empty()) << "half of a series is no measurement";
  EXPECT_EQ(arms[1].series[0].size(), 5u);
}

TEST(SpreadOfTest, IsMedianAndQuartiles) {
  const Spread spread = SpreadOf({5, 1, 2, 4, 3}, 10);
  EXPECT_EQ(spread, (Spread{.median = 30, .low = 20, .high = 40, .runs = 5}));
}

TEST(CurveOfTest, NoSizeTakesLongerThanALarger) {
  MeasuredPath a, b;
  const double times[] = {3, 9, 5, 20};
  for (int i = 0; i < 4; ++i) {
    a.points.push_back({Bytes{uint64_t{64} << i}, Spread{times[i], 0, 0, 1}});
    b.points.push_back({Bytes{uint64_t{64} << i}, Spread{times[i] + 2, 0, 0, 1}});
  }
  const TimeCurve curve = CurveOf({&a, &b});
  ASSERT_EQ(curve.points.size(), 4u);
  EXPECT_EQ(curve.points[0].time, Nanos{4000}) << "the middle of both directions";
  EXPECT_EQ(curve.points[1].time, Nanos{6000}) << "not 10: a larger one took 6";
  EXPECT_EQ(curve.points[3].time, Nanos{21000});
}

TEST(ProbePairsTest, AreAllOfFewAndNeighboursOfMany) {
  EXPECT_EQ(ProbePairs(1).size(), 0u);
  EXPECT_EQ(ProbePairs(2).size(), 2u);
  EXPECT_EQ(ProbePairs(4).size(), 12u);
  EXPECT_EQ(ProbePairs(8).size(), 2u * (7 + 6));
}

BackendSetup SetupFor(const Rig& rig) {
  return BackendSetup{.rig = &rig,
                      .n_devices = rig.size(),
                      .ops = CpuOpsOptions{},
                      .pool = std::make_shared<ThreadPool>(ThreadPoolOptions{.threads = 1})};
}

RigProbeOptions SmallOptions() {
  RigProbeOptions options;
  options.quick = true;
  options.name = "small";
  options.date = "2026-11-25T12:00:00Z";
  options.version = "9.9";
  options.devices = "two of them";
  options.settle = [] {};
  options.rounds = ProbeRounds{.warm_ups = 1, .rounds = 2, .repeats = 2};
  options.products = ProductSizes{.rows = 64, .cols = 256, .bytes = 64 << 10, .prompt = 4};
  options.largest_message = Bytes{64 << 10};
  options.least_checked = Bytes{1 << 20};
  return options;
}

Rig ThroughFile(const Rig& rig) {
  const fs::path path =
      fs::path(::testing::TempDir()) /
      (std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + ".yaml");
  std::ofstream(path) << FormatRigYaml(rig);
  Rig back = Catalogue({}).LoadRig(path.string());
  fs::remove(path);
  return back;
}

std::set<std::string> Movements(const Rig& rig, PathKind path) {
  std::set<std::string> names;
  for (const MeasuredPath& measured : rig.measured->paths) {
    if (measured.path != path || measured.points.empty()) continue;
    names.insert(measured.what);
    for (const MeasuredPoint& point : measured.points) EXPECT_GT(point.micros.median, 0);
  }
  return names;
}

TEST(RigProbeTest, DescribesCpuDevicesAsARigThatCanBePriced) {
  const Rig nominal = ThisMachineRig(2);
  const auto backend = MakeCpuBackend(SetupFor(nominal));
  const Rig rig = ThroughFile(ProbeRig(*backend, nominal, SmallOptions()));
  ASSERT_NE(rig.measured, nullptr);
  EXPECT_EQ(rig.measured->version, "9.9");
  const std::set<std::string> between{"d0 to d1", "d1 to d0", "d0 and d1 at once",
                                      "all-reduce of d0 and d1"};
  EXPECT_EQ(Movements(rig, PathKind::kHostStaged), between);
  std::set<std::string> local = between;
  for (const char* d : {"d0", "d1"}) {
    local.insert(std::string("host to ") + d);
    local.insert(std::string(d) + " to host");
    local.insert(std::string("host and ") + d + " at once");
  }
  EXPECT_EQ(Movements(rig, PathKind::kLocal), local);
  for (const DeviceSpec& device : rig.devices) {
    EXPECT_THAT(device.source, HasSubstr("measured 2026-11-25T12:00:00Z by tandem 9.9"));
    EXPECT_THAT(device.source, HasSubstr("take turns on one team"));
    EXPECT_NE(device.memory_bytes_per_s, nominal.devices[0].memory_bytes_per_s);
    EXPECT_NE(device.flops, nominal.devices[0].flops);
  }
  EXPECT_EQ(rig.link.kind, LinkKind::kLocal);
  EXPECT_EQ(rig.ResolvePath(PathKind::kAuto), PathKind::kLocal);
  EXPECT_FALSE(rig.link.full_duplex) << "one thread copies one after the other";
  EXPECT_GT(rig.AllReduceTime(2, Bytes{1 << 20}), rig.AllReduceTime(2, Bytes{64}));
  // No figure is left out in silence.
  const MeasuredFigure* graph = nullptr;
  for (const MeasuredFigure& figure : rig.measured->figures) {
    if (figure.what == kLaunchGraph) graph = &figure;
    EXPECT_NE(figure.absent.empty(), figure.value.runs == 0) << figure.what;
  }
  ASSERT_NE(graph, nullptr);
  EXPECT_THAT(graph->absent, HasSubstr("no graphs"));
  EXPECT_FALSE(rig.devices[0].replay_gap.has_value());
  ASSERT_FALSE(rig.measured->counters.empty());
  for (const CounterCheck& check : rig.measured->counters) {
    EXPECT_EQ(check.verdict, CounterVerdict::kNotAvailable);
    EXPECT_THAT(check.why, HasSubstr("no counters"));
  }
  for (const auto& device : backend->devices()) {
    EXPECT_EQ(device->ledger().used(), Bytes{}) << "gives its memory back";
  }
}

TEST(RigProbeTest, OneDeviceHasNoLink) {
  const Rig nominal = ThisMachineRig(1);
  const auto backend = MakeCpuBackend(SetupFor(nominal));
  const Rig rig = ThroughFile(ProbeRig(*backend, nominal, SmallOptions()));
  EXPECT_THAT(rig.link.source, HasSubstr("one device has no link"));
  EXPECT_THAT(rig.host_link.source, HasSubstr("measured"));
}

TEST(RigProbeTest, DevicesThatAreTooSmallAreRefused) {
  Rig nominal = ThisMachineRig(2);
  nominal.devices[1].memory = Bytes{1000};
  RigProbeOptions options = SmallOptions();
  options.products = ProductSizes{.rows = 1, .cols = 32, .bytes = 1, .prompt = 1};
  const auto backend = MakeCpuBackend(SetupFor(nominal));
  try {
    ProbeRig(*backend, nominal, options);
    FAIL() << "not refused";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("too small to measure paths"));
  }
}

// GPUs that count what is moved, as NVML would tell.
class CountingMonitor final : public GpuMonitor {
 public:
  Reading<std::string> DriverVersion() override { return std::string("580.1"); }
  GpuState State(const std::string&) override {
    GpuState state;
    state.pcie_width = 8u;
    state.pcie_generation = Reading<uint32_t>::Missing("nvml: not told");
    state.power_limit_watts = 350.0;
    state.sm_mhz = 1980u;
    return state;
  }
  Reading<std::vector<NvlinkEnd>> Nvlinks(const std::string&) override {
    return std::vector<NvlinkEnd>{
        {.link = 0, .version = "4.0", .to_switch = false, .remote_pci_bus_id = "other"}};
  }
  Reading<uint64_t> Count(const std::string& gpu, GpuCounter counter) override {
    return counts[{gpu, counter}];
  }
  Reading<std::string> CommonAncestor(const std::string&, const std::string&) override {
    return std::string("host bridge");
  }
  std::map<std::pair<std::string, GpuCounter>, uint64_t> counts;
};

// Copies, and counts as a GPU's links do. Wrong bytes between some devices, where told.
class CountedTransport final : public Transport {
 public:
  CountedTransport(std::unique_ptr<Transport> inner, CountingMonitor& monitor, double share)
      : inner_(std::move(inner)), monitor_(monitor), share_(share) {}
  PathKind mechanism() const override { return inner_->mechanism(); }
  PathKind path() const override { return inner_->path(); }
  bool recordable() const override { return inner_->recordable(); }
  void Copy(const CopyTask& task, TrafficLedger& ledger) override {
    inner_->Copy(task, ledger);
    const bool staged = path() == PathKind::kHostStaged || task.src.IsHost() || task.dst.IsHost();
    const auto bytes = static_cast<uint64_t>(static_cast<double>(task.bytes()) * share_);
    if (!task.src.IsHost()) {
      monitor_.counts[{Bus(task.src), staged ? GpuCounter::kPcieSent : GpuCounter::kNvlinkSent}] +=
          bytes;
    }
    if (!task.dst.IsHost()) {
      monitor_.counts[{Bus(task.dst),
                       staged ? GpuCounter::kPcieReceived : GpuCounter::kNvlinkReceived}] += bytes;
    }
  }
  static std::string Bus(DeviceId id) { return "bus" + std::to_string(id.value); }

 private:
  std::unique_ptr<Transport> inner_;
  CountingMonitor& monitor_;
  double share_;
};

class ConstantProbe final : public DeviceProbe {
 public:
  explicit ConstantProbe(double factor) : factor_(factor) {}
  void Ask(DeviceMeasure what) override {
    if (what == DeviceMeasure::kProductInt8) Fail(ErrorCode::kUnsupported, "there is no cuBLAS");
    what_ = what;
  }
  double Take() override {
    switch (what_) {
      case DeviceMeasure::kMemoryRead:
        return 1e12 * factor_;
      case DeviceMeasure::kProductBf16:
        return 1e14 * factor_;
      case DeviceMeasure::kLaunchEager:
        return 2e-6 * factor_;
      case DeviceMeasure::kLaunchGraph:
        return 0.5e-6 * factor_;
      default:
        return 1;
    }
  }

 private:
  double factor_;
  DeviceMeasure what_ = DeviceMeasure::kMemoryRead;
};

// Fake devices as two GPUs: no NCCL, and copies of `copy_share` of their bytes as counted.
class PosingBackend final : public Backend {
 public:
  PosingBackend(std::unique_ptr<Backend> inner, CountingMonitor& monitor, double copy_share)
      : inner_(std::move(inner)), monitor_(monitor), copy_share_(copy_share) {}
  std::span<const std::unique_ptr<Device>> devices() const override { return inner_->devices(); }
  Device& host() override { return inner_->host(); }
  Ops& ops(size_t device) override { return inner_->ops(device); }
  WireOps& wire_ops(size_t device) override { return inner_->wire_ops(device); }
  std::unique_ptr<Transport> MakeTransport(PathKind path) override {
    if (path == PathKind::kNccl) Fail(ErrorCode::kUnsupported, "there is no NCCL here");
    return std::make_unique<CountedTransport>(inner_->MakeTransport(path), monitor_,
                                              path == PathKind::kCopy ? copy_share_ : 1);
  }
  std::unique_ptr<Transport> MakeHostTransport(PathKind path) override {
    return std::make_unique<CountedTransport>(inner_->MakeHostTransport(path), monitor_, 1.05);
  }
  std::unique_ptr<DeviceProbe> MakeProbe(size_t device) override {
    return std::make_unique<ConstantProbe>(device == 0 ? 1 : 0.5);
  }
  bool lost() override { return lost_; }
  QueueRecorder* recorder() override { return recorder_; }
  bool lost_ = false;
  QueueRecorder* recorder_ = nullptr;  // none: nothing is timed as a replay

 private:
  std::unique_ptr<Backend> inner_;
  CountingMonitor& monitor_;
  double copy_share_;
};

struct PosingGpus {
  explicit PosingGpus(double copy_share = 1) : machine(3), rig(ThisMachineRig(2)) {
    rig.gpus = {0, 1};
    rig.link.kind = LinkKind::kNvlink;
    for (DeviceSpec& device : rig.devices) device.memory = Bytes{64 << 20};
    options = SmallOptions();
    // Each item of work opens and closes all memory of its device: few are asked.
    options.rounds = ProbeRounds{.warm_ups = 0, .rounds = 1, .repeats = 1};
    options.largest_message = Bytes{512};
    options.least_checked = Bytes{4096};
    options.monitor = &monitor;
    options.found.driver_message = "driver for CUDA 13.0";
    for (int i : {0, 1}) {
      GpuInfo gpu;
      gpu.index = i;
      gpu.name = "Fake";
      gpu.pci_bus_id = CountedTransport::Bus(DeviceId{i});
      options.found.gpus.push_back(gpu);
      options.found.peer_paths.push_back(
          GpuPeerPath{.from = i, .to = 1 - i, .access = true, .performance_rank = 3});
    }
    backend =
        std::make_unique<PosingBackend>(machine.MakeBackend(SetupFor(rig)), monitor, copy_share);
  }
  testing::FakeMachine machine;
  Rig rig;
  CountingMonitor monitor;
  RigProbeOptions options;
  std::unique_ptr<PosingBackend> backend;
};

std::string FactOf(const Rig& rig, const std::string& of, const std::string& what) {
  for (const MachineFact& fact : rig.measured->facts) {
    if (fact.of == of && fact.what == what) {
      return fact.absent.empty() ? fact.value : "absent: " + fact.absent;
    }
  }
  return "no such fact";
}

// What paths that can be recorded move is timed as replays too, and a rig's links have a curve for
// either.
TEST(RigProbeTest, TimesReplaysWhereAPathCanBeRecorded) {
  PosingGpus gpus;
  const Rig eager = ProbeRig(*gpus.backend, gpus.rig, gpus.options);
  EXPECT_EQ(Movements(eager, PathKind::kCopy).count("d0 to d1, replayed"), 0u);
  EXPECT_THAT(eager.link.source, Not(HasSubstr("replayed")));
  EXPECT_TRUE(eager.link.send_replayed.points.empty());
  EXPECT_TRUE(eager.link.all_reduce_replayed.points.empty());
  EXPECT_TRUE(eager.host_link.send_replayed.points.empty());
  gpus.backend->recorder_ = &gpus.machine.recorder();
  const Rig rig = ThroughFile(ProbeRig(*gpus.backend, gpus.rig, gpus.options));
  const std::set<std::string> measured = Movements(rig, PathKind::kCopy);
  for (const char* what : {"d0 to d1", "d0 to d1, replayed", "d1 to d0, replayed",
                           "all-reduce of d0 and d1", "all-reduce of d0 and d1, replayed"}) {
    EXPECT_EQ(measured.count(what), 1u) << what;
  }
  EXPECT_EQ(Movements(rig, rig.HostPath()).count("host to d0, replayed"), 1u);
  EXPECT_THAT(rig.link.source, HasSubstr("2 directions, asked one by one and replayed"));
  const PathKind own = rig.ResolvePath(PathKind::kAuto);
  const auto expect_last = [&](const TimeCurve& curve, PathKind path,
                               const std::vector<std::string>& names) {
    std::vector<double> micros;
    for (const MeasuredPath& measured : rig.measured->paths) {
      const bool named = std::find(names.begin(), names.end(), measured.what) != names.end();
      if (measured.path == path && named) micros.push_back(measured.points.back().micros.median);
    }
    ASSERT_EQ(micros.size(), names.size());
    ASSERT_FALSE(curve.points.empty()) << names[0];
    EXPECT_NEAR(static_cast<double>(curve.points.back().time.value) * 1e-3, Median(micros), 2e-3)
        << names[0];
  };
  expect_last(rig.link.send, own, {"d0 to d1", "d1 to d0"});
  expect_last(rig.link.send_replayed, own, {"d0 to d1, replayed", "d1 to d0, replayed"});
  expect_last(rig.link.all_reduce, own, {"all-reduce of d0 and d1"});
  expect_last(rig.link.all_reduce_replayed, own, {"all-reduce of d0 and d1, replayed"});
  expect_last(rig.host_link.send, rig.HostPath(), {"host to d0", "host to d1"});
  expect_last(rig.host_link.send_replayed, rig.HostPath(),
              {"host to d0, replayed", "host to d1, replayed"});
}

TEST(RigProbeTest, DescribesGpusWithWhatTheyAndTheirDriverSay) {
  PosingGpus gpus;
  const Rig rig = ThroughFile(ProbeRig(*gpus.backend, gpus.rig, gpus.options));
  EXPECT_DOUBLE_EQ(rig.devices[0].memory_bytes_per_s, 1e12);
  EXPECT_DOUBLE_EQ(rig.devices[1].memory_bytes_per_s, 0.5e12) << "each is its own";
  EXPECT_DOUBLE_EQ(rig.devices[0].flops, 1e14);
  EXPECT_EQ(rig.devices[1].launch_gap, Nanos{1000});
  EXPECT_EQ(rig.devices[1].replay_gap, Nanos{250});
  EXPECT_EQ(rig.link.kind, LinkKind::kNvlink);
  const std::string own = ToString(gpus.rig.ResolvePath(PathKind::kAuto));
  EXPECT_EQ(rig.link.name, own + "-measured");
  EXPECT_EQ(FactOf(rig, "machine", "driver version"), "580.1");
  EXPECT_EQ(FactOf(rig, "d1", "PCIe width under load"), "8");
  EXPECT_EQ(FactOf(rig, "d0", "PCIe generation under load"), "absent: nvml: not told");
  EXPECT_EQ(FactOf(rig, "d0", "SM clock under load"), "1980 MHz");
  EXPECT_EQ(FactOf(rig, "d0", "power limit"), "350 W");
  EXPECT_EQ(FactOf(rig, "d0", "NVLink"), "1 up, version 4.0, to other");
  EXPECT_EQ(FactOf(rig, "d1 to d0", "performance rank"), "3");
  EXPECT_EQ(FactOf(rig, "d0 to d1", "peer access"), "yes");
  EXPECT_EQ(FactOf(rig, "d0 to d1", "PCIe paths meet at"), "host bridge");
  EXPECT_EQ(Movements(rig, PathKind::kHostStaged).count("d1 to d0"), 1u);
  EXPECT_EQ(Movements(rig, PathKind::kCopy).count("all-reduce of d0 and d1"), 1u);
  EXPECT_TRUE(Movements(rig, PathKind::kNccl).empty());
  bool listed = false;
  for (const MeasuredPath& path : rig.measured->paths) {
    if (path.path != PathKind::kNccl) continue;
    EXPECT_THAT(path.refused, HasSubstr("no NCCL here"));
    listed = true;
  }
  EXPECT_TRUE(listed) << "a path that is refused is not left out";
  for (const MeasuredFigure& figure : rig.measured->figures) {
    if (figure.what == "products of int8") {
      EXPECT_THAT(figure.absent, HasSubstr("no cuBLAS"));
    }
  }
}

TEST(RigProbeTest, HoldsBookedBytesToTheCounters) {
  for (double share : {1.01, 1.5}) {
    PosingGpus gpus(share);
    const Rig rig = ProbeRig(*gpus.backend, gpus.rig, gpus.options);
    std::map<PathKind, int> seen;
    for (const CounterCheck& check : rig.measured->counters) {
      ++seen[check.path];
      const bool wrong =
          share > 1.02 && check.path == PathKind::kCopy && check.counter.starts_with("nvlink");
      EXPECT_EQ(check.verdict, wrong ? CounterVerdict::kMismatch : CounterVerdict::kMeasured)
          << check.what << " " << check.counter << " " << check.counted.value;
      EXPECT_GE(check.booked.value, 4096u);
    }
    EXPECT_EQ(seen[PathKind::kHostStaged], 4) << "both ends of both directions";
    EXPECT_EQ(seen[PathKind::kCopy], 4 + 2) << "and from the host to each device";
  }
}

TEST(RigProbeTest, OneGpuAsTwoCrossesNoLinkButTheHosts) {
  PosingGpus gpus;
  gpus.rig.gpus = {0, 0};
  const Rig rig = ProbeRig(*gpus.backend, gpus.rig, gpus.options);
  for (const CounterCheck& check : rig.measured->counters) {
    if (check.path != PathKind::kCopy || check.what == "host to d0" || check.what == "host to d1") {
      continue;
    }
    EXPECT_EQ(check.verdict, CounterVerdict::kNotAvailable);
    EXPECT_THAT(check.why, HasSubstr("nothing crosses a link"));
  }
}

TEST(RigProbeTest, ALostDeviceEndsIt) {
  PosingGpus gpus;
  gpus.backend->lost_ = true;
  EXPECT_THROW(ProbeRig(*gpus.backend, gpus.rig, gpus.options), Error);
}

}  // namespace
}  // namespace tandem
