// tandem predict: prices a model on a rig under a split without running anything.
#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "engine/base/error.h"
#include "engine/lab/record.h"
#include "engine/lab/switch_prices.h"
#include "engine/plan/memory_json.h"
#include "engine/plan/pricer.h"
#include "engine/plugin/objective.h"
#include "engine/run/switch_rules.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/engine_flags.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"
#include "tools/tandem/model_shapes.h"

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

// What a phase reaches on all lanes at once, with the step of the one that takes longest; or why it
// has no price.
struct PhasePrice {
  Price step;
  double tokens_per_s = 0;
  std::string unknown;
};

struct Prediction {
  std::string plugin;
  std::string refused;
  std::string reason;  // of a refusal by memory, in a few words
  MemoryTable memory;  // of a refused plan, where it is known
  std::string plan_hash;
  PhasePrice prefill, decode;
  uint32_t lanes = 0;  // that serve a sequence
};

// Sequences spread over the plan's lanes, and what these reach adds up.
PhasePrice PriceOf(const PlannedRun& run, ProgramKind kind, const EngineOptions& options,
                   const PredictFlags& flags) {
  PhasePrice phase;
  for (uint32_t lane = 0; lane < run.plan.n_lanes; ++lane) {
    const uint32_t sequences = SequencesOfLane(run.plan, lane, flags.sequences);
    if (sequences == 0) continue;
    const bool prefill = kind == ProgramKind::kPrefill;
    const Program& program = run.plan.program(kind, lane);
    const auto index = static_cast<size_t>(&program - run.plan.programs.data());
    const StepShape shape = prefill ? PrefillShape(program, flags.prompt)
                                    : DecodeShape(program, sequences, flags.context_at);
    const ProductRates rates =
        RatesOfProducts(options.rig, options.gpu, program, shape, options.limits.max_step_tokens);
    if (!rates.unknown.empty()) return {.step = {}, .unknown = rates.unknown};
    Price step = PriceStep(
        options.model->blocks(), run.plan, program, run.verified.programs[index], shape,
        options.rig,
        {.product_efficiency = rates.efficiency, .fuse_collectives = options.gpu.fuse_collectives});
    const Nanos length = step.timeline.length;
    const uint32_t tokens = prefill ? flags.prompt : sequences;
    if (length.value > 0) phase.tokens_per_s += tokens / length.Seconds();
    if (lane == 0 || length > phase.step.timeline.length) phase.step = std::move(step);
  }
  return phase;
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
    result.lanes = std::min(run.plan.n_lanes, flags.sequences);
    result.prefill = PriceOf(run, ProgramKind::kPrefill, options, flags);
    result.decode = PriceOf(run, ProgramKind::kDecode, options, flags);
  } catch (const PlanRefused& refusal) {
    result.refused = refusal.what();
    result.reason = refusal.reason();
    result.memory = refusal.memory();
  } catch (const Error& error) {
    const ErrorCode refusal = planned ? ErrorCode::kUnsupported : ErrorCode::kPlan;
    if (error.code() != refusal) throw;
    result.refused = error.what();
  }
  return result;
}

// What each sequence takes of its slot: the prompt that is priced, and what lies behind the token
// that a decode step makes.
uint64_t TokensOfASequence(const PredictFlags& flags) {
  return uint64_t{flags.prompt} + flags.context_at + 1;
}

// Neither phase may be longer than the model or a slot has room for.
void CheckRoom(const PredictFlags& flags, const EngineOptions& options) {
  const PlanLimits& limits = options.limits;
  if (flags.sequences > limits.max_sequences) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("predict: --sequences {}, but -np gives {} slots (want as many at least)",
                     flags.sequences, limits.max_sequences));
  }
  const std::pair<const char*, uint64_t> phases[] = {{"--depth", uint64_t{flags.context_at} + 1},
                                                     {"--n-prompt", flags.prompt}};
  const uint32_t most = options.model->config().context;
  const uint32_t slot = limits.context / limits.max_sequences;
  for (const auto& [flag, tokens] : phases) {
    if (most != 0 && tokens > most) {
      Fail(ErrorCode::kInvalidArgument,
           fmt::format("predict: {} makes a sequence of {} tokens, the model was made for {}", flag,
                       tokens, most));
    }
    if (tokens > slot) {
      Fail(
          ErrorCode::kInvalidArgument,
          fmt::format("predict: {} makes a sequence of {} tokens, -c {} has room for {} in each of "
                      "{} slots (want -c {}, or none)",
                      flag, tokens, limits.context, slot, limits.max_sequences,
                      tokens * limits.max_sequences));
    }
  }
}

EngineOptions OptionsOf(const PredictFlags& flags, LogSink* log) {
  std::shared_ptr<const Model> model = OpenModel(flags.engine.model, /*shape_only=*/true);
  // A rig's devices are priced, whichever would compute for them here.
  if (!flags.engine.rig.empty() && flags.engine.devices.starts_with("cpu")) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("predict: --devices {} names processors, but nothing runs and rig {} is "
                     "priced (want how many of its devices, or none)",
                     flags.engine.devices, flags.engine.rig));
  }
  const auto tokens =
      static_cast<uint32_t>(std::min<uint64_t>(TokensOfASequence(flags), uint64_t{1} << 24));
  EngineOptions options =
      flags.engine.MakeOptions(std::move(model), "auto", tokens, flags.sequences, log);
  if (options.rig.is_this_machine) {
    Fail(ErrorCode::kInvalidArgument,
         "predict: needs a rig to price on; add --rig NAME (tandem rig list)");
  }
  CheckRoom(flags, options);
  return options;
}

double Share(const Price& price) {
  return price.timeline.length.value == 0
             ? 0.0
             : static_cast<double>(price.timeline.exposed_comm.value) / price.timeline.length.value;
}

nlohmann::json PhaseJson(const PhasePrice& phase) {
  if (!phase.unknown.empty()) return {{"not_priced", phase.unknown}};
  const Price& price = phase.step;
  return {{"step_ns", price.timeline.length.value},
          {"step_ns_low", price.low.value},
          {"step_ns_high", price.high.value},
          {"tokens_per_s", phase.tokens_per_s},
          {"link_share", Share(price)},
          {"exposed_comm_ns", price.timeline.exposed_comm.value}};
}

nlohmann::json WeightsJson(const Model& model) {
  nlohmann::json json{{"bytes", model.weight_bytes().value}};
  if (!model.layers().empty()) json["type"] = ToString(model.layers().front().wq.type);
  return json;
}

nlohmann::json PredictionJson(const Prediction& p) {
  if (!p.refused.empty()) {
    nlohmann::json row{{"plugin", p.plugin}, {"refused", p.refused}};
    if (!p.memory.rows.empty()) row["memory"] = MemoryJson(p.memory);
    return row;
  }
  return {{"plugin", p.plugin}, {"plan_hash", p.plan_hash},        {"fidelity", "predicted"},
          {"lanes", p.lanes},   {"prefill", PhaseJson(p.prefill)}, {"decode", PhaseJson(p.decode)}};
}

// A line, of auto one for each plugin; --json has the ops around it.
std::string RefusalText(const Prediction& p) {
  if (p.refused.empty()) return "";
  if (p.plugin == "auto") return p.refused + "\n";
  const std::string& why = p.reason.empty() ? p.refused : p.reason;
  return fmt::format("{}: {}\n", p.plugin, why.substr(0, why.find('\n')));
}

bool LacksMemory(const Prediction& p) {
  return !p.refused.empty() && RefusalLabel(p.refused) == "does not fit";
}

// Prices are of the rig's own path, and of the one through the host.
std::string NoteOnPath(const EngineOptions& options) {
  if (options.rig.size() < 2 || options.path == PathKind::kAuto) return "";
  const PathKind own = options.rig.ResolvePath(PathKind::kAuto);
  if (options.path == own || options.path == PathKind::kHostStaged) return "";
  return fmt::format(
      "--path {} is not priced: figures are the same as for {}, by what link {} says",
      ToString(options.path), ToString(own), options.rig.link.name);
}

std::vector<std::string> TableRow(const Prediction& p) {
  if (!p.refused.empty()) return {p.plugin, RefusalLabel(p.refused), "-", "-", "-", "-"};
  std::vector<std::string> row{p.plugin};
  const auto add = [&row](const PhasePrice& phase, int digits) {
    if (!phase.unknown.empty()) {
      row.insert(row.end(), {"not priced", "-"});
      return;
    }
    row.push_back(fmt::format("{:.{}f}", phase.tokens_per_s, digits));
    row.push_back(fmt::format("{:.1f} %", 100 * Share(phase.step)));
  };
  add(p.prefill, 0);
  add(p.decode, 1);
  const Price& decode = p.decode.step;
  row.push_back(p.decode.unknown.empty()
                    ? HumanTime(decode.timeline.length) + " (" + HumanTime(decode.low) + " .. " +
                          HumanTime(decode.high) + ")"
                    : "-");
  return row;
}

int Run(const PredictFlags& flags) {
  ConsoleLog log(flags.engine.verbose);
  const EngineOptions options = OptionsOf(flags, &log);
  std::vector<std::string> plugins = flags.plugins;
  if (!flags.engine.plugin.empty() || !flags.engine.plan_file.empty()) plugins = {options.plugin};
  nlohmann::json rows = nlohmann::json::array();
  std::vector<std::vector<std::string>> table{{"plugin", "prefill tok/s", "link share",
                                               "decode tok/s", "link share",
                                               "decode step (low..high)"}};
  bool any = false;
  bool no_memory = false;
  std::string refusals;
  for (const std::string& plugin : plugins) {
    Prediction p = Predict(plugin, options, flags);
    any = any || p.refused.empty();
    table.push_back(TableRow(p));
    rows.push_back(PredictionJson(p));
    refusals += RefusalText(p);
    no_memory = no_memory || LacksMemory(p);
  }
  std::vector<std::string> notes = NotesOnPrices(options.rig, options.gpu);
  for (std::string note :
       {NoteOnPath(options), no_memory ? QuantisedHint(flags.engine.model, *options.model) : ""}) {
    if (!note.empty()) notes.push_back(std::move(note));
  }
  if (flags.json) {
    nlohmann::json json{
        {"model", flags.engine.model},
        {"weights", WeightsJson(*options.model)},
        {"rig", options.rig.name},
        {"link", options.rig.link.name},
        {"prompt_tokens", flags.prompt},
        {"context", flags.context_at},
        {"context_of_a_slot", options.limits.context / options.limits.max_sequences},
        {"sequences", flags.sequences},
        {"notes", notes},
        {"predictions", rows}};
    for (const auto& [key, word] : ToldSwitches(options.gpu)) json[key] = word;
    PrintJson(json);
  } else {
    PrintLine(
        fmt::format("PREDICTED (nothing ran): {}, {}, on {}, link {}\n"
                    "prompt {}, decode of {} at {} tokens, context {} each",
                    flags.engine.model, WeightsText(*options.model), options.rig.name,
                    options.rig.link.name, flags.prompt, flags.sequences, flags.context_at,
                    options.limits.context / options.limits.max_sequences));
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
      "  tandem predict -m llama-3.1-8b --rig 2x3090-nvlink --link staged-pcie4-x16-3090 --json");
  flags->engine.AddModel(*app);
  flags->engine.AddPlan(*app);
  flags->engine.AddGpuSwitches(*app);
  app->add_option("-p,--n-prompt", flags->prompt, "Prompt tokens")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
  app->add_option("--depth", flags->context_at, "Tokens in each sequence's cache when decoding")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 24));
  app->add_option("--sequences", flags->sequences, "Sequences decoded at once")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  app->add_flag("--json", flags->json, "One JSON object on stdout");
  app->callback([flags, &action] { action = [flags] { return Run(*flags); }; });
}

}  // namespace tandem
