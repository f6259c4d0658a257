// tandem plan show | check | diff: what a split would do, before anything is loaded.
#include <fmt/core.h>

#include <fstream>
#include <iterator>
#include <memory>

#include "engine/base/error.h"
#include "engine/plan/memory_json.h"
#include "engine/plan/text.h"
#include "engine/run/switch_rules.h"
#include "kernels/cuda/library_room.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/engine_flags.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"
#include "tools/tandem/model_shapes.h"
#include "tools/tandem/plan_view.h"

namespace tandem {
namespace {

struct PlanFlags {
  EngineFlags engine;
  bool json = false;
  bool text = false;  // the plan's text alone
  std::vector<std::string> files;
};

struct Planned {
  std::shared_ptr<const Model> model;
  EngineOptions options;
  PlannedRun run;
};

Planned MakePlanned(const EngineFlags& flags, LogSink* log) {
  Planned planned;
  planned.model = OpenModel(flags.model, /*shape_only=*/true);
  planned.options = flags.MakeOptions(planned.model, "auto", 2048, 1, log);
  PlanProblem problem;
  problem.graph = &planned.model->blocks();
  problem.rig = &planned.options.rig;
  problem.limits = planned.options.limits;
  problem.wire = planned.options.wire;
  problem.path = planned.options.path;
  problem.tensor_split = planned.options.tensor_split;
  problem.devices_take_turns = DevicesTakeTurns(planned.options.rig, planned.options.clock);
  try {
    planned.run = Planner(planned.options.planner)
                      .MakePlan(planned.options.plugin, problem, planned.options.knobs);
  } catch (const Error& error) {
    const std::string hint = QuantisedHint(flags.model, *planned.model);
    if (error.code() != ErrorCode::kPlan || hint.empty()) throw;
    Fail(ErrorCode::kPlan, fmt::format("{}\n{}", error.what(), hint));
  }
  CheckSwitches(planned.options.gpu, planned.options.rig, planned.run.plan);
  return planned;
}

// "prefill 312 ops, decode 312 ops in each of 2 lanes".
std::string OpsText(const Plan& plan) {
  std::string text;
  for (ProgramKind kind : {ProgramKind::kPrefill, ProgramKind::kDecode}) {
    text += fmt::format("{}{} {} ops", text.empty() ? "" : ", ", ToString(kind),
                        plan.program(kind, 0).ops.size());
  }
  return plan.n_lanes == 1 ? text : text + fmt::format(" in each of {} lanes", plan.n_lanes);
}

nlohmann::json PlanJson(const Planned& planned, const std::vector<TrafficRow>& traffic) {
  const PlannedRun& run = planned.run;
  nlohmann::json knobs = nlohmann::json::object();
  for (const Knob& knob : run.plan.knobs) knobs[knob.key] = knob.value;
  nlohmann::json json{{"plan_hash", run.plan_hash},
                      {"plugin", run.plan.plugin},
                      {"plugin_requested", run.requested},
                      {"plugin_version", run.plan.plugin_version},
                      {"knobs", knobs},
                      {"rig", planned.options.rig.name},
                      {"devices", run.plan.n_devices},
                      {"lanes", run.plan.n_lanes},
                      {"wire", ToString(run.plan.wire)},
                      {"context", planned.options.limits.context},
                      {"slots", planned.options.limits.max_sequences},
                      {"memory", MemoryJson(run.verified.memory)},
                      {"traffic", TrafficJson(traffic)},
                      {"warnings", run.verified.warnings},
                      {"diagnostics", run.diagnostics},
                      {"candidates", CandidatesJson(run)},
                      {"plan", FormatPlan(run.plan)}};
  for (const auto& [key, word] : ToldSwitches(planned.options.gpu)) json[key] = word;
  if (run.use) json["auto_use"] = AutoUseJson(*run.use);
  return json;
}

int Show(const PlanFlags& flags) {
  ConsoleLog log(flags.engine.verbose);
  Planned planned = MakePlanned(flags.engine, &log);
  std::vector<TrafficRow> traffic = StandardTraffic(planned.run, planned.model->blocks(),
                                                    planned.options.rig, planned.options.limits);
  if (flags.json) {
    PrintJson(PlanJson(planned, traffic));
    return kExitOk;
  }
  if (flags.text) {
    PrintOut(FormatPlan(planned.run.plan));
    return kExitOk;
  }
  PrintLine(
      fmt::format("plan {}  plugin {}  rig {}  wire {}  model {}, {}\n{} (--text: all of them)\n",
                  planned.run.plan_hash.substr(0, 16), planned.run.plan.plugin,
                  planned.options.rig.name, ToString(planned.run.plan.wire), flags.engine.model,
                  WeightsText(*planned.model), OpsText(planned.run.plan)));
  if (planned.run.use) {
    PrintLine(CandidatesText(planned.run));
    if (DevicesTakeTurns(planned.options.rig, planned.options.clock)) {
      PrintLine(
          "Nominal figures: the devices are this machine's processor under several names, so they "
          "are\npriced one after the other. What two cards would gain: --rig NAME.\n");
    }
  }
  PrintLine(MemoryText(planned.run.verified.memory));
  if (planned.options.gpu.prefill_products == PrefillProducts::kCublasLt) {
    PrintLine(fmt::format("Every GPU keeps {} for cuBLASLt beside that.\n",
                          HumanBytes(Bytes{LibraryRoom{}.bytes()})));
  }
  PrintLine("A prefill of 512 tokens with one row sampled, and one decode step of one sequence:");
  PrintOut(TrafficText(traffic));
  for (const std::string& warning : planned.run.verified.warnings) PrintNote("warning: " + warning);
  return kExitOk;
}

int Check(const PlanFlags& flags) {
  ConsoleLog log(flags.engine.verbose);
  // A refusal is an Error(kPlan), which main reports with its exit code; nothing more to do here.
  Planned planned = MakePlanned(flags.engine, &log);
  if (flags.json) {
    PrintJson({{"accepted", true},
               {"plan_hash", planned.run.plan_hash},
               {"memory", MemoryJson(planned.run.verified.memory)},
               {"warnings", planned.run.verified.warnings}});
  } else {
    PrintLine(fmt::format("accepted: plan {} by {}", planned.run.plan_hash.substr(0, 16),
                          planned.run.plan.plugin));
    PrintOut(MemoryText(planned.run.verified.memory));
  }
  return kExitOk;
}

Plan ReadPlan(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Fail(ErrorCode::kNotFound, "plan: cannot read " + path);
  return ParsePlan(std::string(std::istreambuf_iterator<char>(file), {}), path);
}

int Diff(const PlanFlags& flags) {
  Plan a = ReadPlan(flags.files.at(0));
  Plan b = ReadPlan(flags.files.at(1));
  std::string diff = DiffPlans(a, b);
  if (flags.json) {
    PrintJson({{"equal", PlanHash(a) == PlanHash(b)},
               {"hashes", {PlanHash(a), PlanHash(b)}},
               {"diff", diff}});
  } else if (diff.empty()) {
    PrintLine("equal: plan " + PlanHash(a).substr(0, 16));
  } else {
    PrintOut(diff);
  }
  return diff.empty() ? kExitOk : kExitFailure;
}

}  // namespace

void AddPlanCommand(CLI::App& root, Action& action) {
  CLI::App* app = root.add_subcommand("plan", "Show, check or compare plans without running them");
  app->require_subcommand(1);
  app->footer(
      "Examples:\n"
      "  tandem plan show --plugin auto --rig 2x3090-nvlink -c 8192 -np 8\n"
      "  tandem plan check --plugin file --plan my.plan --devices 2\n"
      "  tandem plan diff my.plan other.plan");
  auto flags = std::make_shared<PlanFlags>();
  CLI::App* show = app->add_subcommand(
      "show", "What a plan takes of each device's memory and of each link; --text: its ops");
  CLI::App* check =
      app->add_subcommand("check", "Whether a plan is right and fits; exit code 4 when not");
  show->footer(
      "Examples:\n"
      "  tandem plan show --plugin tensor_split --devices 2\n"
      "  tandem plan show -m llama-3.1-70b-q4_0 --rig 2x3090-nvlink --plugin layer_split "
      "-c 8192 --json");
  check->footer(
      "Examples:\n"
      "  tandem plan show --plugin layer_split --devices 2 --text > my.plan   # edit it\n"
      "  tandem plan check --plugin file --plan my.plan --devices 2");
  for (CLI::App* sub : {show, check}) {
    flags->engine.AddModel(*sub);
    flags->engine.AddPlan(*sub);
    flags->engine.AddGpuSwitches(*sub);
    sub->add_flag("--json", flags->json, "One JSON object on stdout");
  }
  show->add_flag("--text", flags->text, "The plan's text alone, as --plugin file reads it");
  show->callback([flags, &action] { action = [flags] { return Show(*flags); }; });
  check->callback([flags, &action] { action = [flags] { return Check(*flags); }; });
  CLI::App* diff = app->add_subcommand("diff", "Lines that differ between two plan files");
  diff->add_option("files", flags->files, "Two plan files")->required()->expected(2);
  diff->add_flag("--json", flags->json);
  diff->callback([flags, &action] { action = [flags] { return Diff(*flags); }; });
}

}  // namespace tandem
