#include "tools/tandem/engine_flags.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "engine/base/error.h"
#include "engine/base/suggest.h"
#include "engine/run/gpu_rig.h"
#include "engine/run/gpu_share.h"
#include "engine/run/switch_rules.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"

namespace tandem {
namespace {

[[noreturn]] void BadFlag(const std::string& flag, const std::string& got,
                          const std::string& want) {
  Fail(ErrorCode::kInvalidArgument, fmt::format("{}: got '{}', want {}", flag, got, want));
}

std::vector<std::string> SplitList(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

GpuSwitches SwitchesFrom(const std::map<std::string, std::string>& words) {
  GpuSwitches gpu;
  for (const GpuSwitch& s : AllGpuSwitches()) {
    const auto word = words.find(s.key);
    if (word != words.end() && !s.Set(gpu, word->second)) {
      BadFlag(s.flag(), word->second, s.Wanted());
    }
  }
  return gpu;
}

}  // namespace

void EngineFlags::AddModel(CLI::App& app) {
  app.add_option("-m,--model", model,
                 "Model: a name (smollm2-135m), a path to a GGUF file or a safetensors folder, "
                 "synthetic:..., or a shape of the catalogue")
      ->capture_default_str();
  app.add_flag("-v,--verbose", verbose, "Say more on stderr");
}

void EngineFlags::AddPlan(CLI::App& app) {
  app.add_option(
      "--plugin", plugin,
      "Split: single, replicas, layer_split, tensor_split, offload, auto, file, or a path "
      "to a plugin's .so");
  app.add_option("-S,--split-mode", split_mode, "llama.cpp's names: none, layer, tensor")
      ->group("");
  app.add_option("--sm", split_mode)->group("");
  app.add_option("--knob", knobs, "A plugin's knob, key=value; repeatable");
  app.add_option("--plan", plan_file, "Plan file, with --plugin file");
  app.add_option("--devices,--device", devices,
                 "Number of CPU devices, or a list: cpu:0,cpu:1, cuda:0,cuda:1, one GPU as two, "
                 "cuda:0,cuda:0, or a GPU and the CPU beside it, cuda:0,cpu");
  app.add_option(
         "--gpu-share", gpu_share,
         "A GPU named several times: auto cuts it into parts of equal bandwidth, a number is "
         "each part's multiprocessors, off lets the devices share all of it")
      ->capture_default_str();
  app.add_option("--rig", rig, "Rig of the catalogue (tandem rig list), or a path to a rig file");
  app.add_option("--link", link, "Link profile that replaces the rig's own");
  app.add_option("--path", path,
                 "Transport, where the rig has it: auto, local, copy, p2p, host_staged, nccl")
      ->capture_default_str();
  app.add_option("--wire", wire, "Element type of activations on links: f32, bf16, q8")
      ->capture_default_str();
  app.add_option("--ts,--tensor-split", tensor_split,
                 "Relative shares of the devices, such as 2,1");
  app.add_option("-c,--ctx-size", context, "Tokens of context in all, over all slots")
      ->check(CLI::Range(uint32_t{1}, uint32_t{1} << 30));
  app.add_option("--np,--parallel", slots, "Slots: sequences served at once")
      ->check(CLI::Range(1, 4096));
  app.add_option("--ub,--ubatch-size", step_tokens, "Most prompt tokens in one step")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
}

void EngineFlags::AddCompute(CLI::App& app) {
  app.add_option("-t,--threads", threads, "CPU threads; 0: one a core")
      ->capture_default_str()
      ->check(CLI::Range(0, 1024));
  app.add_option("--pinned-memory", pinned_gib,
                 "GiB of host memory to page-lock for GPUs at most; 0: three quarters of it")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--activations", activations,
                 "What quantised weights meet: int8 or f32; with int8, BF16 weights meet BF16")
      ->capture_default_str();
  app.add_option("--cpu-tier", cpu_tier,
                 "CPU kernels: auto, amx, avx512_bf16, avx512, avx2 or portable, of those this "
                 "processor has")
      ->capture_default_str();
  app.add_option("--clock", clock, "wall, or virtual: rig time");
  app.add_option("--op-times", op_times, "On the virtual clock: measured, or modelled")
      ->capture_default_str();
  AddGpuSwitches(app);
}

void EngineFlags::AddGpuSwitches(CLI::App& app) {
  for (const GpuSwitch& s : AllGpuSwitches()) {
    std::string& word = gpu_switches[s.key] = s.WordOf(GpuSwitches{});
    app.add_option(s.flags, word, s.help)->capture_default_str();
  }
}

std::string EngineFlags::PluginOr(const std::string& fallback) const {
  if (!plugin.empty()) return plugin;
  if (!plan_file.empty()) return "file";
  if (split_mode.empty()) return fallback;
  if (split_mode == "none") return "single";
  if (split_mode == "layer") return "layer_split";
  if (split_mode == "tensor") return "tensor_split";
  BadFlag("--split-mode", split_mode, "none, layer or tensor (row has no counterpart here)");
}

std::vector<Knob> EngineFlags::Knobs() const {
  std::vector<Knob> result;
  for (const std::string& text : knobs) {
    size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) BadFlag("--knob", text, "key=value");
    result.push_back({text.substr(0, equals), text.substr(equals + 1)});
  }
  if (!plan_file.empty()) {
    if (PluginOr("file") != "file") BadFlag("--plan", plan_file, "--plugin file beside it");
    result.push_back({"plan", plan_file});
  }
  return result;
}

Rig EngineFlags::MakeRig(uint32_t default_devices) const {
  const GpuShareOption share = ParseGpuShare(gpu_share);  // refused whether or not a GPU is shared
  if (rig.empty() || rig == "cpu") {
    if (!link.empty()) {
      Fail(ErrorCode::kInvalidArgument, "--link: a link profile needs a rig; add --rig NAME");
    }
    if (devices.empty()) return ThisMachineRig(default_devices);
    return MachineRig(ParseDeviceList(devices), share);
  }
  Catalogue catalogue(CatalogueRoots());
  Rig result = catalogue.LoadRig(rig);
  const DeviceList list = devices.empty() ? DeviceList{} : ParseDeviceList(devices);
  if (!list.gpus.empty()) {
    if (!link.empty()) {
      BadFlag("--link", link, "none with GPUs of this machine, which have a link of their own");
    }
    result = RigOnGpus(result, list.gpus, FindGpus(), ReadGpuMemory);
    ShareGpus(result, share, ThisMachinesShares());
    return result;
  }
  if (!link.empty()) result.link = catalogue.LoadLink(link);
  if (!devices.empty()) {
    const uint32_t count = list.count;
    if (count > result.size()) {
      Fail(ErrorCode::kInvalidArgument, fmt::format("--devices: rig {} has {} devices, not {}",
                                                    result.name, result.size(), count));
    }
    result.devices.resize(count);
  }
  return result;
}

PlanLimits EngineFlags::Limits(const Model& model, uint32_t default_context,
                               uint32_t default_slots) const {
  PlanLimits limits;
  limits.max_sequences = slots == 0 ? default_slots : slots;
  limits.context = context == 0 ? default_context * limits.max_sequences : context;
  limits.max_step_tokens = step_tokens;
  uint64_t longest = uint64_t{model.config().context} * limits.max_sequences;
  if (longest != 0 && limits.context > longest) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("-c {}: the model was made for {} tokens a sequence, {} for {} slots",
                     limits.context, model.config().context, longest, limits.max_sequences));
  }
  return limits;
}

std::vector<double> EngineFlags::TensorSplit() const {
  std::vector<double> shares;
  // llama.cpp takes both separators.
  std::string text = tensor_split;
  std::ranges::replace(text, '/', ',');
  for (const std::string& part : SplitList(text, ',')) {
    double share = 0;
    auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), share);
    if (error != std::errc() || end != part.data() + part.size() || !(share >= 0) || share > 1e9) {
      BadFlag("--tensor-split", tensor_split, "shares that are not negative, such as 2,1");
    }
    shares.push_back(share);
  }
  return shares;
}

EngineOptions EngineFlags::MakeOptions(std::shared_ptr<const Model> model,
                                       const std::string& default_plugin, uint32_t default_context,
                                       uint32_t default_slots, LogSink* log) const {
  EngineOptions options;
  options.plugin = PluginOr(default_plugin);
  options.rig = MakeRig(options.plugin == "single" ? 1 : 2);
  options.gpu = SwitchesFrom(gpu_switches);
  DriveRig(options.rig, options.gpu);
  options.limits = Limits(*model, std::min(default_context, std::max(model->config().context, 1u)),
                          default_slots);
  options.model = std::move(model);
  options.knobs = Knobs();
  options.planner = DefaultPlannerOptions();
  std::optional<WireType> wire_type = WireTypeFromName(wire);
  if (!wire_type) BadFlag("--wire", wire, "f32, bf16 or q8");
  options.wire = *wire_type;
  std::optional<PathKind> path_kind = PathKindFromName(path);
  if (!path_kind) BadFlag("--path", path, "auto, local, copy, p2p, host_staged or nccl");
  options.path = *path_kind;
  if (options.rig.size() > 1) options.rig.ResolvePath(options.path);  // refuses what it lacks
  options.tensor_split = TensorSplit();
  if (activations != "int8" && activations != "f32")
    BadFlag("--activations", activations, "int8 or f32");
  options.ops.activations = activations == "f32" ? ActivationType::kF32 : ActivationType::kInt8;
  options.ops.tier = cpu_tier;
  options.threads = threads;
  options.pinned_limit = Bytes{static_cast<uint64_t>(pinned_gib * (uint64_t{1} << 30))};
  if (!clock.empty() && clock != "wall" && clock != "virtual")
    BadFlag("--clock", clock, "wall or virtual");
  options.clock = clock == "virtual" ? ClockKind::kVirtual : ClockKind::kWall;
  if (op_times != "measured" && op_times != "modelled")
    BadFlag("--op-times", op_times, "measured or modelled");
  if (op_times == "modelled" && options.clock == ClockKind::kWall)
    BadFlag("--op-times", op_times, "measured on the wall clock, or --clock virtual beside it");
  options.op_times = op_times == "modelled" ? OpTimes::kModelled : OpTimes::kMeasured;
  options.on_device_lost = [](const std::string&) { DeviceLost() = true; };
  options.log = log;
  return options;
}

}  // namespace tandem
