// tandem predict: prices a model on a rig under a split without running anything.
#include <fmt/core.h>

#include <memory>

#include "engine/base/error.h"
#include "engine/lab/record.h"
#include "engine/plan/pricer.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/engine_flags.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"

namespace tandem {
namespace {

struct PredictFlags {
  EngineFlags engine;
  std::vector<std::string> plugins{"single", "replicas", "layer_split", "tensor_split", "offload"};
  uint32_t prompt = 512;
  uint32_t context_at = 1024;
  uint32_t sequences = 1;
  bool json = false;
};

struct Prediction {
  std::string plugin;
  std::string refused;
  std::string plan_hash;
  Price prefill, decode;
};

const Program& LaneZero(const Plan& plan, ProgramKind kind) { return plan.program(kind, 0); }

Prediction Predict(const std::string& plugin, const EngineOptions& options,
                   const PredictFlags& flags) {
  Prediction result;
  result.plugin = plugin;
  PlanProblem problem;
  problem.graph = &options.model->blocks();
  problem.rig = &options.rig;
  problem.limits = options.limits;
  problem.wire = options.wire;
  problem.path = options.path;
  problem.tensor_split = options.tensor_split;
  try {
    PlannedRun run = Planner(options.planner).MakePlan(plugin, problem, options.knobs);
    result.plugin = run.plan.plugin;
    result.plan_hash = run.plan_hash;
    for (size_t p = 0; p < run.plan.programs.size(); ++p) {
      const Program& program = run.plan.programs[p];
      if (program.lane != 0) continue;
      bool prefill = &program == &LaneZero(run.plan, ProgramKind::kPrefill);
      StepShape shape = prefill ? PrefillShape(program, flags.prompt)
                                : DecodeShape(program, flags.sequences, flags.context_at);
      Price price = PriceStep(*problem.graph, run.plan, program, run.verified.programs[p], shape,
                              options.rig);
      (prefill ? result.prefill : result.decode) = std::move(price);
    }
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kPlan) throw;
    result.refused = error.what();
  }
  return result;
}

double Share(const Price& price) {
  return price.timeline.length.value == 0
             ? 0.0
             : static_cast<double>(price.timeline.exposed_comm.value) / price.timeline.length.value;
}

double Rate(uint32_t tokens, Nanos time) { return time.value == 0 ? 0.0 : tokens / time.Seconds(); }

nlohmann::json PhaseJson(const Price& price, uint32_t tokens) {
  return {{"step_ns", price.timeline.length.value},
          {"step_ns_low", price.low.value},
          {"step_ns_high", price.high.value},
          {"tokens_per_s", Rate(tokens, price.timeline.length)},
          {"link_share", Share(price)},
          {"exposed_comm_ns", price.timeline.exposed_comm.value}};
}

int Run(const PredictFlags& flags) {
  ConsoleLog log(flags.engine.verbose);
  std::shared_ptr<const Model> model = OpenModel(flags.engine.model, /*shape_only=*/true);
  EngineOptions options = flags.engine.MakeOptions(model, "auto", 4096, flags.sequences, &log);
  if (options.rig.is_this_machine) {
    Fail(ErrorCode::kInvalidArgument,
         "predict: needs a rig to price on; add --rig NAME (tandem rig list)");
  }
  std::vector<std::string> plugins = flags.plugins;
  if (!flags.engine.plugin.empty() || !flags.engine.plan_file.empty()) plugins = {options.plugin};
  nlohmann::json rows = nlohmann::json::array();
  std::vector<std::vector<std::string>> table{{"plugin", "prefill tok/s", "link share",
                                               "decode tok/s", "link share",
                                               "decode step (low..high)"}};
  bool any = false;
  std::string refusals;  // a line each; --json has the ops around it
  for (const std::string& plugin : plugins) {
    Prediction p = Predict(plugin, options, flags);
    any = any || p.refused.empty();
    if (!p.refused.empty()) {
      rows.push_back({{"plugin", p.plugin}, {"refused", p.refused}});
      refusals += fmt::format("{}: {}\n", p.plugin, p.refused.substr(0, p.refused.find('\n')));
      table.push_back({p.plugin, RefusalLabel(p.refused), "-", "-", "-", "-"});
      continue;
    }
    rows.push_back({{"plugin", p.plugin},
                    {"plan_hash", p.plan_hash},
                    {"fidelity", "predicted"},
                    {"prefill", PhaseJson(p.prefill, flags.prompt)},
                    {"decode", PhaseJson(p.decode, flags.sequences)}});
    table.push_back({p.plugin, fmt::format("{:.0f}", Rate(flags.prompt, p.prefill.timeline.length)),
                     fmt::format("{:.1f} %", 100 * Share(p.prefill)),
                     fmt::format("{:.1f}", Rate(flags.sequences, p.decode.timeline.length)),
                     fmt::format("{:.1f} %", 100 * Share(p.decode)),
                     HumanTime(p.decode.timeline.length) + " (" + HumanTime(p.decode.low) + " .. " +
                         HumanTime(p.decode.high) + ")"});
  }
  if (flags.json) {
    PrintJson({{"model", flags.engine.model},
               {"rig", options.rig.name},
               {"link", options.rig.link.name},
               {"prompt_tokens", flags.prompt},
               {"context", flags.context_at},
               {"sequences", flags.sequences},
               {"predictions", rows}});
  } else {
    PrintLine(fmt::format(
        "PREDICTED (nothing ran): {} on {}, link {}; prompt {}, decode of {} at {} tokens",
        flags.engine.model, options.rig.name, options.rig.link.name, flags.prompt, flags.sequences,
        flags.context_at));
    PrintOut(FormatTable(table) + refusals);
  }
  return any ? kExitOk : kExitPlan;
}

}  // namespace

void AddPredictCommand(CLI::App& root, Action& action) {
  auto flags = std::make_shared<PredictFlags>();
  CLI::App* app = root.add_subcommand("predict", "Price a model on a rig without running it");
  app->footer(
      "Examples:\n"
      "  tandem predict -m llama-3.1-8b --rig 2x3090-nvlink\n"
      "  tandem predict -m llama-3.1-8b --rig 2x3090-nvlink --link pcie4-x16-host-staged --json");
  flags->engine.AddModel(*app);
  flags->engine.AddPlan(*app);
  app->add_option("-p,--n-prompt", flags->prompt, "Prompt tokens")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
  app->add_option("--depth", flags->context_at, "Tokens in each sequence's cache when decoding")
      ->capture_default_str();
  app->add_option("--sequences", flags->sequences, "Sequences decoded at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  app->add_flag("--json", flags->json, "One JSON object on stdout");
  app->callback([flags, &action] { action = [flags] { return Run(*flags); }; });
}

}  // namespace tandem
