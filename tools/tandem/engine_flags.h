// The flags that several commands share: which model, which rig, which split, how time is told.
// Spelled as llama.cpp's users type them where they have a counterpart.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/run/engine.h"

namespace tandem {

struct EngineFlags {
  std::string model = "smollm2-135m";
  std::string plugin;              // --plugin; empty: from --split-mode, else the command's default
  std::string split_mode;          // -sm none|layer|tensor
  std::vector<std::string> knobs;  // --knob key=value
  std::string plan_file;           // --plan PATH (plugin file)
  std::string devices;             // --devices: a count, or a list such as cpu:0,cpu:1
  std::string gpu_share = "auto";  // --gpu-share: how a GPU named twice is cut
  std::string rig;                 // --rig NAME
  std::string link;                // --link NAME
  std::string path = "auto";
  std::string wire = "f32";
  std::string tensor_split;  // -ts 2,1
  std::string activations = "int8";
  std::string cpu_tier = "auto";
  std::string clock;  // wall or virtual
  std::string op_times = "measured";
  std::map<std::string, std::string> gpu_switches;  // word by key (gpu_switches.h)
  int threads = 0;
  double pinned_gib = 0;       // --pinned-memory; 0: three quarters of the host's
  uint32_t context = 0;        // -c; 0: the command's default
  uint32_t slots = 0;          // -np
  uint32_t step_tokens = 512;  // -ub
  bool verbose = false;

  void AddModel(CLI::App& app);
  void AddPlan(CLI::App& app);  // plugin, devices, rig, link, path, wire, split, -c, -np
  void AddGpuSwitches(CLI::App& app);
  // threads, activations, tier, clock, op times, and the switches of GPUs
  void AddCompute(CLI::App& app);

  // Values with their meaning; each throws Error(kInvalidArgument) naming the flag.
  std::string PluginOr(const std::string& fallback) const;
  std::vector<Knob> Knobs() const;
  // The rig that --rig, --link and --devices describe; `default_devices` CPU devices of this
  // machine when none is given.
  Rig MakeRig(uint32_t default_devices) const;
  PlanLimits Limits(const Model& model, uint32_t default_context, uint32_t default_slots) const;
  std::vector<double> TensorSplit() const;

  EngineOptions MakeOptions(std::shared_ptr<const Model> model, const std::string& default_plugin,
                            uint32_t default_context, uint32_t default_slots, LogSink* log) const;
};

}  // namespace tandem
