#include "engine/plugin/planner.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/plan/text.h"
#include "engine/plugin/auto.h"
#include "engine/plugin/discovery.h"
#include "engine/plugin/helper_run.h"
#include "engine/plugin/objective.h"

namespace tandem {
namespace {

constexpr uint64_t kLongestPlanFile = uint64_t{256} << 20;

PluginInfo AutoInfo() {
  PluginInfo info;
  info.name = "auto";
  info.summary = "Prices every installed plugin over its knobs and takes the fastest that fits.";
  info.knobs = AutoKnobs();
  return info;
}

PluginInfo FileInfo() {
  PluginInfo info;
  info.name = "file";
  info.summary = "Runs a plan written by hand.";
  info.knobs = {{"plan",
                 "string",
                 "",
                 {""},
                 "Path of the plan's text (tandem plan show --text prints one)."}};
  return info;
}

void CheckProblem(const PlanProblem& problem) {
  Check(problem.graph != nullptr && problem.rig != nullptr, "a plan problem has a graph and a rig");
  const std::vector<double>& shares = problem.tensor_split;
  if (shares.empty()) return;
  if (shares.size() != problem.rig->size()) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("planner: tensor split of {} shares for {} devices (want one a device)",
                     shares.size(), problem.rig->size()));
  }
  double total = 0;
  for (double share : shares) {
    if (!std::isfinite(share) || share < 0) {
      Fail(ErrorCode::kInvalidArgument,
           fmt::format("planner: tensor split share {} (want a number of 0 or more)", share));
    }
    total += share;
  }
  if (!(total > 0) || !std::isfinite(total)) {
    Fail(ErrorCode::kInvalidArgument, "planner: tensor split shares sum to zero");
  }
}

// Movements of a plan file that leave the path open take the one asked for.
void ApplyPath(PathKind path, const std::string& file, Plan* plan) {
  if (path == PathKind::kAuto) return;
  for (Program& program : plan->programs) {
    for (Op& op : program.ops) {
      const bool movement = op.kind >= OpKind::kAllReduce && op.kind <= OpKind::kKvMove;
      if (!movement || op.devices.empty() || op.devices[0].IsHost()) continue;
      if (op.path == PathKind::kAuto) op.path = path;
      if (op.path != path) {
        Fail(ErrorCode::kPlan, fmt::format("plan {}: '{}' takes path {}, but {} was asked for",
                                           file, FormatOp(op), ToString(op.path), ToString(path)));
      }
    }
  }
}

std::string ReadPlanFile(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    Fail(ErrorCode::kNotFound, fmt::format("plan {}: no such file", path));
  }
  if (std::filesystem::file_size(path, error) > kLongestPlanFile) {
    Fail(ErrorCode::kPlan,
         fmt::format("plan {}: longer than {} MiB", path, kLongestPlanFile >> 20));
  }
  std::ifstream stream(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (!stream) Fail(ErrorCode::kIo, fmt::format("plan {}: cannot be read", path));
  return text;
}

PlannedRun RunFile(const PlanProblem& problem, const std::vector<Knob>& knobs) {
  if (knobs.size() != 1 || knobs[0].key != "plan" || knobs[0].value.empty()) {
    Fail(ErrorCode::kInvalidArgument,
         "plugin file: wants the plan to run, --plan PATH (the knob plan=PATH) and no other "
         "knob; tandem plan show --text prints one");
  }
  const std::string& path = knobs[0].value;
  PlannedRun run;
  run.plugin = FileInfo();
  run.plan = ParsePlan(ReadPlanFile(path), path);
  ApplyPath(problem.path, path, &run.plan);
  run.verified = VerifyPlan(run.plan, *problem.graph, *problem.rig, problem.limits);
  if (!run.verified.ok()) {
    throw PlanRefused(fmt::format("plan {}: {}", path, run.verified.refusal->message),
                      run.verified);
  }
  run.plan_hash = PlanHash(run.plan);
  return run;
}

}  // namespace

Planner::Planner(PlannerOptions options) : options_(std::move(options)) {}

PlannedRun Planner::MakePlan(const std::string& name, const PlanProblem& problem,
                             const std::vector<Knob>& knobs) const {
  CheckProblem(problem);
  PlannedRun run;
  if (name == "file") {
    run = RunFile(problem, knobs);
  } else if (name == "auto") {
    run = SearchPlugins(options_, problem, knobs);
  } else {
    run = RunPlugin(options_, FindPlugin(name, options_.folders), problem, knobs);
  }
  run.requested = name;
  return run;
}

PluginInfo Planner::Describe(const std::string& name) const {
  if (name == "auto") return AutoInfo();
  if (name == "file") return FileInfo();
  return DescribeFile(options_, FindPlugin(name, options_.folders));
}

std::vector<PluginInfo> Planner::List() const {
  std::vector<PluginInfo> plugins;
  for (const PluginFile& file : ListPluginFiles(options_.folders)) {
    try {
      plugins.push_back(DescribeFile(options_, FindPlugin(file.name, options_.folders)));
    } catch (const Error& error) {
      PluginInfo broken;
      broken.name = file.name;
      broken.path = file.path;
      broken.summary = fmt::format("broken: {}", error.what());
      plugins.push_back(std::move(broken));
    }
  }
  return plugins;
}

}  // namespace tandem
