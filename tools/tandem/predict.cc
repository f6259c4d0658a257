// tandem predict: prices a model on a rig under a split without running anything.
#include <fmt/core.h>

#include <memory>

#include "engine/base/error.h"
#include "engine/lab/record.h"
#include "engine/lab/switch_prices.h"
#include "engine/plan/pricer.h"
#include "engine/run/switch_rules.h"
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

// One step's price, or why it has none.
struct StepPrice {
  Price price;
  std::string unknown;
};

struct Prediction {
  std::string plugin;
  std::string refused;
  std::string plan_hash;
  StepPrice prefill, decode;
};

StepPrice PriceOf(const PlannedRun& run, size_t index, const EngineOptions& options,
                  const PredictFlags& flags) {
  const Program& program = run.plan.programs[index];
  const StepShape shape = program.kind == ProgramKind::kPrefill
                              ? PrefillShape(program, flags.prompt)
                              : DecodeShape(program, flags.sequences, flags.context_at);
  const ProductRates rates =
      RatesOfProducts(options.rig, options.gpu, program, shape, options.limits.max_step_tokens);
  if (!rates.unknown.empty()) return {.price = {}, .unknown = rates.unknown};
  return {.price = PriceStep(options.model->blocks(), run.plan, program,
                             run.verified.programs[index], shape, options.rig,
                             {.product_efficiency = rates.efficiency,
                              .fuse_collectives = options.gpu.fuse_collectives}),
          .unknown = {}};
}

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
  bool planned = false;
  try {
    PlannedRun run = Planner(options.planner).MakePlan(plugin, problem, options.knobs);
    planned = true;
    result.plugin = run.plan.plugin;
    result.plan_hash = run.plan_hash;
    CheckSwitches(options.gpu, options.rig, run.plan);
    for (size_t p = 0; p < run.plan.programs.size(); ++p) {
      const Program& program = run.plan.programs[p];
      if (program.lane != 0) continue;
      const bool prefill = program.kind == ProgramKind::kPrefill;
      (prefill ? result.prefill : result.decode) = PriceOf(run, p, options, flags);
    }
  } catch (const Error& error) {
    const ErrorCode refusal = planned ? ErrorCode::kUnsupported : ErrorCode::kPlan;
    if (error.code() != refusal) throw;
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

nlohmann::json PhaseJson(const StepPrice& step, uint32_t tokens) {
  if (!step.unknown.empty()) return {{"not_priced", step.unknown}};
  const Price& price = step.price;
  return {{"step_ns", price.timeline.length.value},
          {"step_ns_low", price.low.value},
          {"step_ns_high", price.high.value},
          {"tokens_per_s", Rate(tokens, price.timeline.length)},
          {"link_share", Share(price)},
          {"exposed_comm_ns", price.timeline.exposed_comm.value}};
}

std::vector<std::string> TableRow(const Prediction& p, const PredictFlags& flags) {
  if (!p.refused.empty()) return {p.plugin, RefusalLabel(p.refused), "-", "-", "-", "-"};
  std::vector<std::string> row{p.plugin};
  const auto add = [&row](const StepPrice& step, uint32_t tokens, int digits) {
    if (!step.unknown.empty()) {
      row.insert(row.end(), {"not priced", "-"});
      return;
    }
    row.push_back(fmt::format("{:.{}f}", Rate(tokens, step.price.timeline.length), digits));
    row.push_back(fmt::format("{:.1f} %", 100 * Share(step.price)));
  };
  add(p.prefill, flags.prompt, 0);
  add(p.decode, flags.sequences, 1);
  const Price& decode = p.decode.price;
  row.push_back(p.decode.unknown.empty()
                    ? HumanTime(decode.timeline.length) + " (" + HumanTime(decode.low) + " .. " +
                          HumanTime(decode.high) + ")"
                    : "-");
  return row;
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
    table.push_back(TableRow(p, flags));
    if (!p.refused.empty()) {
      rows.push_back({{"plugin", p.plugin}, {"refused", p.refused}});
      refusals += fmt::format("{}: {}\n", p.plugin, p.refused.substr(0, p.refused.find('\n')));
      continue;
    }
    rows.push_back({{"plugin", p.plugin},
                    {"plan_hash", p.plan_hash},
                    {"fidelity", "predicted"},
                    {"prefill", PhaseJson(p.prefill, flags.prompt)},
                    {"decode", PhaseJson(p.decode, flags.sequences)}});
  }
  const std::vector<std::string> notes = NotesOnPrices(options.rig, options.gpu);
  if (flags.json) {
    nlohmann::json json{{"model", flags.engine.model},
                        {"rig", options.rig.name},
                        {"link", options.rig.link.name},
                        {"prompt_tokens", flags.prompt},
                        {"context", flags.context_at},
                        {"sequences", flags.sequences},
                        {"notes", notes},
                        {"predictions", rows}};
    for (const auto& [key, word] : ToldSwitches(options.gpu)) json[key] = word;
    PrintJson(json);
  } else {
    PrintLine(fmt::format(
        "PREDICTED (nothing ran): {} on {}, link {}; prompt {}, decode of {} at {} tokens",
        flags.engine.model, options.rig.name, options.rig.link.name, flags.prompt, flags.sequences,
        flags.context_at));
    PrintOut(FormatTable(table) + refusals);
    for (const std::string& note : notes) PrintLine(note);
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
  flags->engine.AddGpuSwitches(*app);
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
