#include "engine/plugin/helper_run.h"

#include <fmt/format.h>

#include "engine/base/error.h"
#include "engine/base/sha256.h"
#include "engine/plan/text.h"
#include "engine/plugin/child.h"
#include "engine/plugin/protocol.h"

namespace tandem {
namespace {

// What the plugin said and printed, last lines last, for the message of a failure (which may have
// quoted one of them).
std::string LastWords(const PlanReply& reply, const ChildResult& result) {
  std::string text;
  constexpr size_t kLines = 5;
  const size_t first = reply.diagnostics.size() > kLines ? reply.diagnostics.size() - kLines : 0;
  for (size_t i = first; i < reply.diagnostics.size(); ++i) {
    const std::string& line = reply.diagnostics[i];
    const size_t level = line.starts_with("error: ") ? 7 : 0;
    if (reply.error.find(line.substr(level)) == std::string::npos) text += "\n  " + line;
  }
  constexpr size_t kPrinted = 1000;
  const std::string& printed = result.printed;
  if (!printed.empty()) {
    text += "\n  it printed: " +
            printed.substr(printed.size() > kPrinted ? printed.size() - kPrinted : 0);
  }
  return text;
}

std::string StageText(const std::string& stage) {
  if (stage == "load") return "while it was being loaded";
  if (stage == "describe") return "while it was describing itself";
  if (stage == "plan") return "in plan()";
  return "before it was opened";
}

// Runs the helper once. Throws what it reported, or how it ended.
PlanReply AskHelper(const PlannerOptions& options, const PlanRequest& request) {
  // Before it runs: the hash is of what was opened, whatever the plugin does to its file.
  const std::string sha256 = Sha256HexOfFile(request.plugin_path);
  ChildLimits limits;
  limits.timeout_s = options.timeout_s;
  limits.memory = options.memory_limit;
  const ChildResult result = RunChild(options.helper, FormatRequest(request), limits);
  PlanReply reply = ParseReply(result.reply);
  const std::string& path = request.plugin_path;
  if (!reply.garbage.empty()) {
    Fail(ErrorCode::kPlugin,
         fmt::format("plugin {}: the planning helper's reply is damaged {} ({}); the plugin wrote "
                     "into it or over its memory{}",
                     path, StageText(reply.stage), reply.garbage, LastWords(reply, result)));
  }
  if (reply.has_error) {
    Fail(reply.error_code, reply.error + LastWords(reply, result));
  }
  if (!reply.done || !reply.has_info || (request.plan && reply.plan_text.empty())) {
    Fail(ErrorCode::kPlugin, fmt::format("plugin {}: {} {}{}", path, DescribeEnd(result, limits),
                                         StageText(reply.stage), LastWords(reply, result)));
  }
  if (!result.printed.empty()) reply.diagnostics.push_back("printed: " + result.printed);
  reply.info.path = path;
  reply.info.sha256 = sha256;
  return reply;
}

void CheckName(const PluginFile& file, const PluginInfo& info) {
  if (file.name.empty() || file.name == info.name) return;
  Fail(ErrorCode::kPlugin,
       fmt::format("plugin {}: calls itself '{}' but its file says '{}'; rename the file, or name "
                   "it by its path",
                   file.path, info.name, file.name));
}

// Parses, stamps and verifies what the helper sent. A refusal names the plugin.
void Accept(const PlanReply& reply, const PlanProblem& problem, PlannedRun* run) {
  run->plugin = reply.info;
  run->diagnostics = reply.diagnostics;
  try {
    run->plan = ParsePlan(reply.plan_text, reply.info.name);
  } catch (const Error& error) {
    Fail(ErrorCode::kPlugin, fmt::format("plugin {}: its plan came back unreadable: {}",
                                         reply.info.path, error.what()));
  }
  const Plan& plan = run->plan;
  if (plan.plugin != reply.info.name || plan.wire != problem.wire ||
      plan.n_devices != problem.rig->size()) {
    Fail(ErrorCode::kPlugin,
         fmt::format("plugin {}: its plan's first lines were overwritten", reply.info.path));
  }
  run->verified = VerifyPlan(plan, *problem.graph, *problem.rig, problem.limits);
  if (!run->verified.ok()) {
    throw PlanRefused(
        fmt::format("plan of {}: {}", reply.info.name, run->verified.refusal->message),
        run->verified);
  }
  run->plan_hash = PlanHash(plan);
}

}  // namespace

PluginInfo DescribeFile(const PlannerOptions& options, const PluginFile& file) {
  PlanRequest request;
  request.plugin_path = file.path;
  PlanReply reply = AskHelper(options, request);
  CheckName(file, reply.info);
  return reply.info;
}

PlannedRun RunPlugin(const PlannerOptions& options, const PluginFile& file,
                     const PlanProblem& problem, const std::vector<Knob>& knobs) {
  PlanRequest request;
  request.plugin_path = file.path;
  request.plan = true;
  request.knobs = knobs;
  request.graph = *problem.graph;
  request.rig = *problem.rig;
  request.limits = problem.limits;
  request.wire = problem.wire;
  request.path = problem.path;
  request.tensor_split = problem.tensor_split;
  const PlanReply reply = AskHelper(options, request);
  CheckName(file, reply.info);
  PlannedRun run;
  Accept(reply, problem, &run);
  return run;
}

}  // namespace tandem
