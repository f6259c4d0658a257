// A scenario: one question, the axes it varies, and how each cell is run. Read from strict YAML
// (scenarios/*.yaml): unknown or duplicate keys are errors with a line number; any axis takes one
// value or a list; numbers also take ranges, "128..2048*2" (doubling) or "1..9+2" (steps).
//
//   question: When does the link dominate?      # required, first
//   model: [smollm2-135m, "synthetic:h=512,..."] # names, paths, catalogue shapes
//   rig: 2x3090-nvlink                          # one or several; "cpu" is this machine itself,
//                                                # "cuda:0,cuda:1" its GPUs, and "cuda:0,cuda:0"
//                                                # one as two
//   devices: 2                                   # take the rig's first N devices (default: all)
//   link: [nvlink3-bridge, pcie4-x16-p2p]       # default: the rig's own
//   plugin: [single, {name: layer_split, microbatches: 4}, auto]
//   tensor_split: "2,1"                         # or absent
//   wire: f32     path: auto     activations: int8
//   graphs: [on, off]                           # and every other switch of gpu_switches.h
//   clock: virtual     op_times: measured       # virtual|wall, measured|modelled
//   fidelity: emulated                          # or predicted: nothing runs, any model size
//   phases: {prefill: {tokens: 512}, decode: {context: 512, tokens: 32, sequences: 1}}
//   workload: {loop: open, rate: 2, requests: 32, prompt_tokens: 64, output_tokens: 32,
//              concurrency: 4, client: in_process}   # instead of phases
//   context: 4096   slots: 4   step_tokens: 512   threads: 0
//   repetitions: 3  warmup: 1  seed: 1  order: interleaved   # or shuffled
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/plan/plan.h"
#include "engine/rig/rig.h"
#include "engine/run/engine.h"

namespace tandem {

struct PluginChoice {
  std::string name;
  std::vector<Knob> knobs;
  std::string Label() const;  // "layer_split microbatches=4"
};

struct PrefillSpec {
  uint32_t tokens = 512;
};

struct DecodeSpec {
  uint32_t context = 512;  // tokens in each sequence's cache before the first measured step
  uint32_t tokens = 32;    // measured steps
  uint32_t sequences = 1;  // decoded at once
};

struct WorkloadSpec {
  std::string loop = "closed";        // "closed" (concurrency users) or "open" (Poisson arrivals)
  std::string client = "in_process";  // or "http": through the server, on the wall clock
  double rate = 1.0;                  // requests/s, open loop
  uint32_t concurrency = 4;           // closed loop
  uint32_t requests = 32;
  uint32_t prompt_tokens = 64;
  uint32_t output_tokens = 32;
};

// One combination of the axes.
struct Cell {
  std::vector<std::pair<std::string, std::string>> axes;  // those that vary, in file order
  std::string model;
  std::string rig;
  std::string link;      // empty: the rig's own
  uint32_t devices = 0;  // 0: all of the rig's
  PluginChoice plugin;
  std::vector<double> tensor_split;
  WireType wire = WireType::kF32;
  PathKind path = PathKind::kAuto;
  ActivationType activations = ActivationType::kInt8;
  GpuSwitches gpu;
  std::optional<PrefillSpec> prefill;
  std::optional<DecodeSpec> decode;
  std::optional<WorkloadSpec> workload;
  PlanLimits limits;
};

struct Scenario {
  std::string name;  // the file's stem
  std::string question;
  ClockKind clock = ClockKind::kVirtual;
  OpTimes op_times = OpTimes::kMeasured;
  bool predicted = false;
  uint32_t repetitions = 3;
  uint32_t warmup = 1;
  uint64_t seed = 1;
  bool shuffled = false;
  int threads = 0;
  std::vector<Cell> cells;  // the Cartesian product, in file order
};

// `overrides` are "dotted.path=yaml" settings applied to the file before it is read.
// Throws Error(kNotFound | kInvalidArgument) with file, line, key.
Scenario LoadScenario(const std::string& path, const std::vector<std::string>& overrides);

}  // namespace tandem
