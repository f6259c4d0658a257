// tandem rig probe: measures this machine and writes its rig file.
#include "engine/lab/rig_probe.h"

#include <fmt/core.h>

#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "engine/base/error.h"
#include "engine/lab/device_figures.h"
#include "engine/lab/record.h"
#include "engine/run/gpu_rig.h"
#include "engine/run/gpu_share.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/rig_json.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

struct ProbeFlags {
  std::string devices;
  std::string out;
  std::string gpu_share = "auto";
  int threads = 0;
  bool quick = false;
  bool force = false;
  bool json = false;
};

std::string UtcNow() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", utc.tm_year + 1900, utc.tm_mon + 1,
                     utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

// Every GPU that was found, else two CPU devices.
std::string DefaultDevices(const GpuInventory& found) {
  std::string devices;
  for (const GpuInfo& gpu : found.gpus) {
    devices += fmt::format("{}cuda:{}", devices.empty() ? "" : ",", gpu.index);
  }
  return devices.empty() ? "cpu:0,cpu:1" : devices;
}

// Refused before anything is measured.
void CheckOut(const std::string& out, bool force) {
  if (fs::is_directory(out)) {
    Fail(ErrorCode::kInvalidArgument, fmt::format("--out: {} is a folder (want a file)", out));
  }
  if (!force && fs::exists(out)) {
    Fail(ErrorCode::kIo,
         fmt::format("rig probe: {} is there already; add --force to replace it, or "
                     "name another file with --out",
                     out));
  }
}

void Write(const std::string& out, const std::string& text) {
  const fs::path folder = fs::path(out).parent_path();
  std::error_code error;
  if (!folder.empty()) fs::create_directories(folder, error);
  std::ofstream file(out, std::ios::trunc);
  file << text;
  file.close();
  if (!file) Fail(ErrorCode::kIo, fmt::format("rig probe: cannot write {}", out));
}

std::string SpreadText(const Spread& spread, const std::string& unit) {
  return fmt::format("{:.4g} {} ({:.4g} .. {:.4g})", spread.median, unit, spread.low, spread.high);
}

void PrintFigures(const RigMeasurements& measured) {
  std::vector<std::vector<std::string>> rows{{"of", "what", "median (quartiles)", "runs"}};
  for (const MachineFact& fact : measured.facts) {
    rows.push_back(
        {fact.of, fact.what, fact.absent.empty() ? fact.value : "absent: " + fact.absent, ""});
  }
  for (const MeasuredFigure& figure : measured.figures) {
    const bool there = figure.absent.empty();
    rows.push_back({fmt::format("d{}", figure.device), figure.what,
                    there ? SpreadText(figure.value, figure.unit) : "absent: " + figure.absent,
                    there ? std::to_string(figure.value.runs) : ""});
  }
  PrintOut(FormatTable(rows));
}

// The point whose size is nearest from below.
std::string TimeAt(const MeasuredPath& path, uint64_t bytes) {
  std::string text = "-";
  for (const MeasuredPoint& point : path.points) {
    if (point.bytes.value <= bytes) {
      text = HumanTime(NanosFromSeconds(point.micros.median * 1e-6));
    }
  }
  return text;
}

void PrintPaths(const RigMeasurements& measured) {
  std::vector<std::vector<std::string>> rows{
      {"path", "movement", "64 B", "32 KiB", "2 MiB", "largest", "GB/s there"}};
  std::vector<std::string> refused;
  for (const MeasuredPath& path : measured.paths) {
    if (path.points.empty()) {
      refused.push_back(
          fmt::format("path {} refused ({}): {}", ToString(path.path), path.what, path.refused));
      continue;
    }
    const MeasuredPoint& last = path.points.back();
    rows.push_back(
        {ToString(path.path), path.what, TimeAt(path, 64), TimeAt(path, 32 << 10),
         TimeAt(path, 2 << 20), TimeAt(path, last.bytes.value),
         fmt::format("{:.2f}", static_cast<double>(last.bytes.value) * 1e-3 / last.micros.median)});
  }
  PrintOut("\n" + FormatTable(rows));
  for (const std::string& line : refused) PrintLine(line);
}

void PrintCounters(const RigMeasurements& measured) {
  std::vector<std::vector<std::string>> rows{
      {"path", "movement", "counter", "booked", "counted", "verdict"}};
  for (const CounterCheck& check : measured.counters) {
    rows.push_back({ToString(check.path), check.what, check.counter, HumanBytes(check.booked),
                    HumanBytes(check.counted),
                    check.verdict == CounterVerdict::kNotAvailable
                        ? "not available: " + check.why
                        : fmt::format("{} (within {:.0f} %)", ToString(check.verdict),
                                      check.tolerance * 100)});
  }
  if (rows.size() > 1) PrintOut("\n" + FormatTable(rows));
}

int Probe(const ProbeFlags& flags) {
  RigProbeOptions options;
  options.found = FindGpus();
  options.devices = flags.devices.empty() ? DefaultDevices(options.found) : flags.devices;
  const DeviceList list = ParseDeviceList(options.devices);
  const std::string out = flags.out.empty()
                              ? (fs::path("results") / MachineFolderName() / "rig.yaml").string()
                              : flags.out;
  CheckOut(out, flags.force);
  const Rig nominal = MachineRig(list, ParseGpuShare(flags.gpu_share));
  BackendSetup setup{.rig = &nominal, .n_devices = nominal.size()};
  setup.pool = std::make_shared<ThreadPool>(ThreadPoolOptions{.threads = flags.threads});
  const auto backend = list.gpus.empty() ? MakeCpuBackend(setup) : MakeCudaBackend(setup);
  const std::unique_ptr<GpuMonitor> monitor = OpenGpuMonitor();
  ProgressBar progress;
  options.quick = flags.quick;
  options.name = MachineFolderName();
  options.date = UtcNow();
  options.version = TandemVersion();
  options.monitor = monitor.get();
  options.settle = [] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); };
  options.progress = [&](size_t done, size_t total, std::string_view what) {
    progress.Update(done, total, what);
  };
  const Rig rig = ProbeRig(*backend, nominal, options);
  Write(out, FormatRigYaml(rig));
  if (flags.json) {
    nlohmann::json json = RigJson(rig);
    json["file"] = out;
    PrintJson(json);
  } else {
    PrintFigures(*rig.measured);
    PrintPaths(*rig.measured);
    PrintCounters(*rig.measured);
  }
  PrintNote(fmt::format("wrote {}; use it: tandem predict -m llama-3.2-1b --rig {}", out,
                        out.find('/') == std::string::npos ? "./" + out : out));
  return kExitOk;
}

}  // namespace

void AddRigProbeCommand(CLI::App& rig, Action& action) {
  auto flags = std::make_shared<ProbeFlags>();
  CLI::App* app = rig.add_subcommand(
      "probe", "Measure this machine: memory, products, launches, every path; write its rig file");
  app->footer(
      "Examples:\n"
      "  tandem rig probe\n"
      "  tandem rig probe --devices cuda:0,cuda:1 --out my-rig.yaml\n"
      "  tandem rig probe --quick --devices cpu:0,cpu:1 --json\n"
      "\n"
      "A figure is the median of repeated runs, everything measured in turn, with its quartiles.\n"
      "Keep the machine quiet meanwhile.");
  app->add_option("--devices,--device", flags->devices,
                  "What to measure: cuda:0,cuda:1, or CPU devices; default: every GPU, else "
                  "cpu:0,cpu:1");
  app->add_option("--out", flags->out, "The file; default: results/<machine>/rig.yaml");
  app->add_option("--gpu-share", flags->gpu_share,
                  "A GPU named several times: auto, multiprocessors of each, or off")
      ->capture_default_str();
  app->add_option("-t,--threads", flags->threads, "CPU threads; 0: one a core")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app->add_flag("--quick", flags->quick, "Fewer sizes and runs");
  app->add_flag("--force", flags->force, "Replace a file that is there");
  app->add_flag("--json", flags->json, "JSON on stdout");
  app->callback([flags, &action] { action = [flags] { return Probe(*flags); }; });
}

}  // namespace tandem
