// tandem rig list | show | test | machine-folder: the rigs of the catalogue, and this machine. What
// probes it is in rig_probe.cc.
#include "engine/rig/rig.h"

#include <fmt/core.h>

#include <memory>

#include "engine/base/error.h"
#include "engine/device/inventory.h"
#include "engine/lab/record.h"
#include "engine/run/backend.h"
#include "engine/run/gpu_rig.h"
#include "engine/run/gpu_share.h"
#include "engine/run/path_test.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"
#include "tools/tandem/rig_json.h"

namespace tandem {
namespace {

struct RigFlags {
  std::string name;
  std::string devices = "2";
  std::string shown;  // `show` alone: GPUs to be shown as the rig that they make
  std::string gpu_share = "auto";
  std::string path;
  bool json = false;
};

// A few times of a curve, and behind them those of its replays where they have a curve of their
// own.
std::string TimesText(const TimeCurve& curve, const TimeCurve& replayed) {
  const auto times = [](const TimeCurve& of) {
    const auto time = [&](uint64_t bytes) {
      return HumanTime(of.points.empty() ? Nanos{} : of.At(Bytes{bytes}));
    };
    return fmt::format("8 KiB {}, 1 MiB {}, 64 MiB {}", time(8 << 10), time(1 << 20),
                       time(64 << 20));
  };
  return replayed.points.empty() ? times(curve)
                                 : times(curve) + fmt::format(" (replayed: {})", times(replayed));
}

std::string LinkLine(const LinkProfile& link) {
  return fmt::format("{} ({}): {}", link.name, ToString(link.kind),
                     TimesText(link.send, link.send_replayed));
}

// "2 x RTX 3090", "RTX 3090 + Desktop CPU DDR5".
std::string DevicesLine(const Rig& rig) {
  std::string line;
  for (size_t i = 0; i < rig.size();) {
    size_t end = i + 1;
    while (end < rig.size() && rig.devices[end].name == rig.devices[i].name) ++end;
    if (!line.empty()) line += " + ";
    if (end - i > 1 || rig.size() == 1) line += fmt::format("{} x ", end - i);
    line += rig.devices[i].name;
    i = end;
  }
  return line;
}

std::string GapText(const DeviceSpec& device) {
  const auto micros = [](Nanos gap) { return static_cast<double>(gap.value) / 1e3; };
  std::string text = fmt::format("{:.3g}", micros(device.launch_gap));
  return device.replay_gap ? text + fmt::format(" ({:.3g})", micros(*device.replay_gap)) : text;
}

void PrintRig(const Rig& rig) {
  PrintLine(rig.description.empty() ? rig.name : rig.name + ": " + rig.description);
  std::vector<std::vector<std::string>> rows{
      {"device", "memory", "GB/s", "TFLOP/s", "launch us (replayed)", "source"}};
  for (size_t i = 0; i < rig.devices.size(); ++i) {
    const DeviceSpec& d = rig.devices[i];
    rows.push_back({fmt::format("d{} {}", i, d.name), HumanBytes(d.memory),
                    fmt::format("{:.0f}", d.memory_bytes_per_s / 1e9),
                    fmt::format("{:.0f}", d.flops / 1e12), GapText(d), d.source});
  }
  PrintOut(FormatTable(rows));
  PrintLine("link       " + LinkLine(rig.link));
  if (!rig.link.all_reduce.points.empty()) {
    PrintLine("all-reduce " + TimesText(rig.link.all_reduce, rig.link.all_reduce_replayed));
  }
  PrintLine("host link  " + LinkLine(rig.host_link));
  PrintLine("source     " + rig.link.source);
}

int ShowThisMachine(const RigFlags& flags) {
  GpuInventory inventory = FindGpus();
  nlohmann::json facts = MachineFacts();
  if (flags.json) {
    PrintJson({{"machine", facts},
               {"gpus", InventoryJson(inventory)},
               {"rig", RigJson(ThisMachineRig(2))}});
    return kExitOk;
  }
  PrintLine("this machine: " + facts.dump());
  PrintLine(fmt::format("CUDA: {}", inventory.driver_message));
  for (const GpuInfo& gpu : inventory.gpus) {
    PrintLine(fmt::format("  cuda:{} {} ({})", gpu.index, gpu.name, HumanBytes(gpu.total_memory)));
  }
  PrintRig(ThisMachineRig(2));
  return kExitOk;
}

int Show(const RigFlags& flags) {
  if (flags.shown.empty() && (flags.name.empty() || flags.name == "cpu")) {
    return ShowThisMachine(flags);
  }
  Rig rig;
  if (!flags.shown.empty()) {
    rig = MachineRig(ParseDeviceList(flags.shown), ParseGpuShare(flags.gpu_share));
  } else {
    rig = Catalogue(CatalogueRoots()).LoadRig(flags.name);
  }
  if (flags.json) {
    PrintJson(RigJson(rig));
  } else {
    PrintRig(rig);
  }
  return kExitOk;
}

int List(const RigFlags& flags) {
  Catalogue catalogue(CatalogueRoots());
  nlohmann::json rigs = nlohmann::json::array(), links = nlohmann::json::array();
  std::vector<std::vector<std::string>> table{{"rig", "devices", "link"}};
  for (const std::string& name : catalogue.RigNames()) {
    Rig rig = catalogue.LoadRig(name);
    rigs.push_back({{"name", name},
                    {"description", rig.description},
                    {"devices", rig.size()},
                    {"link", rig.link.name}});
    table.push_back({name, DevicesLine(rig), rig.link.name});
  }
  std::vector<std::vector<std::string>> link_table{{"link", "kind", "8 KiB", "64 MiB"}};
  for (const std::string& name : catalogue.LinkNames()) {
    LinkProfile link = catalogue.LoadLink(name);
    links.push_back({{"name", name}, {"kind", ToString(link.kind)}, {"source", link.source}});
    link_table.push_back({name, ToString(link.kind), HumanTime(link.send.At(Bytes{8 << 10})),
                          HumanTime(link.send.At(Bytes{64 << 20}))});
  }
  if (flags.json) {
    PrintJson({{"rigs", rigs}, {"links", links}});
  } else {
    PrintOut(FormatTable(table) + "\n" + FormatTable(link_table));
  }
  return kExitOk;
}

// Every path between the devices named, or the one named; a path that must be had and cannot, or
// that delivers wrong values, is an error.
int Test(const RigFlags& flags) {
  const DeviceList list = ParseDeviceList(flags.devices);
  const Rig rig = MachineRig(list, ParseGpuShare(flags.gpu_share));
  if (rig.size() < 2) {
    Fail(ErrorCode::kInvalidArgument,
         "--devices: a path has two ends (want two devices or more, such as cuda:0,cuda:1)");
  }
  std::vector<PathKind> paths = PathsToTest(rig);
  if (!flags.path.empty()) {
    const std::optional<PathKind> named = PathKindFromName(flags.path);
    if (!named) {
      Fail(ErrorCode::kInvalidArgument,
           fmt::format("--path: got '{}', want copy, p2p, host_staged, nccl or local", flags.path));
    }
    paths = {rig.ResolvePath(*named)};
  }
  BackendSetup setup{.rig = &rig, .n_devices = rig.size()};
  setup.pool = std::make_shared<ThreadPool>(ThreadPoolOptions{});
  const auto backend = rig.gpus.empty() ? MakeCpuBackend(setup) : MakeCudaBackend(setup);
  nlohmann::json rows = nlohmann::json::array();
  std::vector<std::vector<std::string>> table{{"path", "what", "result"}};
  bool wrong = false;
  for (const PathVerdict& verdict : TestPaths(*backend, paths)) {
    const bool absent = !verdict.passed && verdict.what == kPathCanBeHad;
    wrong = wrong || (!verdict.passed && (!absent || !flags.path.empty()));
    const std::string result = verdict.passed ? "right" : absent ? "absent" : "WRONG";
    rows.push_back({{"path", ToString(verdict.path)},
                    {"what", verdict.what},
                    {"result", verdict.passed ? "right"
                               : absent       ? "absent"
                                              : "wrong"},
                    {"why", verdict.why}});
    table.push_back({ToString(verdict.path), verdict.what,
                     verdict.why.empty() ? result : result + ": " + verdict.why});
  }
  if (flags.json) {
    PrintJson({{"devices", flags.devices}, {"rig", rig.name}, {"paths", rows}});
  } else {
    PrintOut(FormatTable(table));
  }
  return wrong ? kExitDevice : kExitOk;
}

}  // namespace

void AddRigCommand(CLI::App& root, Action& action) {
  auto flags = std::make_shared<RigFlags>();
  CLI::App* app = root.add_subcommand("rig", "Rigs of the catalogue, and this machine");
  app->require_subcommand(1);
  app->footer(
      "Examples:\n"
      "  tandem rig list\n"
      "  tandem rig show 2x3090-nvlink\n"
      "  tandem rig show            # this machine\n"
      "  tandem rig test --devices cuda:0,cuda:1\n"
      "  tandem rig probe           # measures this machine, writes its rig file");
  CLI::App* list = app->add_subcommand("list", "Every rig and link profile");
  list->callback([flags, &action] { action = [flags] { return List(*flags); }; });
  CLI::App* show = app->add_subcommand("show", "One rig, or this machine when no name is given");
  show->add_option("name", flags->name, "A rig's name or a path to a rig file");
  show->add_option("--devices,--device", flags->shown,
                   "The rig that these devices make, one GPU as two measured: cuda:0,cuda:0");
  show->callback([flags, &action] { action = [flags] { return Show(*flags); }; });
  CLI::App* test = app->add_subcommand("test", "Whether every path between devices delivers");
  test->add_option("--devices,--device", flags->devices,
                   "Number of CPU devices, or a list: cuda:0,cuda:1")
      ->capture_default_str();
  test->add_option("--path", flags->path, "This path alone: p2p, copy, host_staged, nccl, local");
  test->callback([flags, &action] { action = [flags] { return Test(*flags); }; });
  for (CLI::App* sub : {show, test}) {
    sub->add_option("--gpu-share", flags->gpu_share,
                    "A GPU named several times: auto, multiprocessors of each, or off")
        ->capture_default_str();
  }
  for (CLI::App* sub : {list, show, test}) sub->add_flag("--json", flags->json, "JSON on stdout");
  AddRigProbeCommand(*app, action);
  CLI::App* folder =
      app->add_subcommand("machine-folder", "This machine's folder name under results/");
  folder->callback([&action] {
    action = [] {
      PrintLine(MachineFolderName());
      return kExitOk;
    };
  });
}

}  // namespace tandem
