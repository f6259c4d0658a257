// Plans by name: finds a plugin, runs it in a helper process, verifies what comes back. `auto` and
// `file` look like plugins to the user but are the engine's own: auto prices every installed plugin
// over its grid of knobs and takes the fastest that fits, file reads a plan written by hand.
//
// A plugin's shared object is opened only in the helper (`tandem-planner`, whose path the caller
// gives), which is bounded in time and memory: a plugin that crashes, hangs or scribbles is an
// Error(kPlugin) that says so. No fallback anywhere.
//
//   Planner planner({.helper = bin + "/tandem-planner", .folders = {bin +
//   "/../lib/tandem/plugins"}}); PlannedRun planned = planner.MakePlan("layer_split", problem,
//   {{"microbatches", "2"}});
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/model/block_graph.h"
#include "engine/plan/plan.h"
#include "engine/plan/verifier.h"
#include "engine/rig/rig.h"

namespace tandem {

struct PlannerOptions {
  std::string helper;                // path of the tandem-planner executable
  std::vector<std::string> folders;  // where plugins are found by name, in order; never the cwd
  double timeout_s = 10.0;
  Bytes memory_limit{uint64_t{2} << 30};
};

// What a plan is asked for.
struct PlanProblem {
  const BlockGraph* graph = nullptr;
  const Rig* rig = nullptr;
  PlanLimits limits;
  WireType wire = WireType::kF32;
  PathKind path = PathKind::kAuto;   // every movement asks for it
  std::vector<double> tensor_split;  // relative shares a device (--tensor-split); empty: even
  // The devices are one processor under several names: one runs at a time (DevicesTakeTurns in
  // engine/run/engine.h). `auto` prices by it; a plugin's price() knows nothing of it.
  bool devices_take_turns = false;
};

struct KnobInfo {
  std::string name;
  std::string type;  // "int", "double", "bool", "string"
  std::string default_value;
  std::vector<std::string> grid;  // values `auto` tries; at least the default
  std::string help;
};

struct PluginInfo {
  std::string name;
  std::string version;
  std::string summary;
  std::string path;    // of the .so; empty for auto and file
  std::string sha256;  // of the .so
  uint32_t abi_minor_built = 0;
  uint32_t abi_minor_needed = 0;
  std::vector<KnobInfo> knobs;
};

// The use that `auto` looks for the best plan for: so many sequences at once, each with a prompt
// and an answer of this length. It takes the plan that is through with all of them first.
struct AutoUse {
  uint32_t prompt_tokens = 512;
  uint32_t output_tokens = 128;
  uint32_t sequences = 1;  // default: the slots
};

struct PlannedRun {
  Plan plan;
  PluginInfo plugin;      // of the plugin that wrote the plan (under auto, the chosen one)
  std::string requested;  // "auto", "layer_split", "./my_plugin.so"
  std::string plan_hash;
  VerifyResult verified;
  std::vector<std::string> diagnostics;  // what the plugin said
  // Under auto: what it looked for, and every candidate with its price or why it was refused.
  std::optional<AutoUse> use;
  struct Candidate {
    std::string plugin;
    std::vector<Knob> knobs;
    Nanos decode;         // one decode step of the busiest lane
    Nanos prefill;        // one prefill step there
    double seconds = 0;   // until every sequence of the use is through
    std::string refused;  // empty when it was priced
    std::string reason;   // of a refusal by memory, in a few words; else empty
    MemoryTable memory;   // of a refused plan, where it is known
    bool chosen = false;
  };
  std::vector<Candidate> candidates;
};

class Planner {
 public:
  explicit Planner(PlannerOptions options);

  // `name`: a plugin's name, a path with a '/' to a .so, "auto", or "file" with the knob
  // plan=PATH. Throws Error(kPlugin) with near names where none is found, Error(kPlan).
  PlannedRun MakePlan(const std::string& name, const PlanProblem& problem,
                      const std::vector<Knob>& knobs) const;
  PluginInfo Describe(const std::string& name) const;
  // Every plugin in the folders, broken ones with `summary` saying what is wrong.
  std::vector<PluginInfo> List() const;

 private:
  PlannerOptions options_;
};

}  // namespace tandem
