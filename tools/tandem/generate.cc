// tandem generate: one prompt, one completion, and what its steps cost.
#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "engine/base/error.h"
#include "engine/run/engine.h"
#include "engine/run/text_stream.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/engine_flags.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"
#include "tools/tandem/model_shapes.h"

namespace tandem {
namespace {

struct GenerateFlags {
  EngineFlags engine;
  std::string prompt;
  std::vector<std::string> prompt_ids;  // "1,2,3", in one word or more
  uint32_t max_tokens = 64;
  double temperature = 0.0;
  uint32_t top_k = 0;
  double top_p = 1.0;
  double min_p = 0.0;
  uint64_t seed = 0;
  std::vector<std::string> stops;
  bool ignore_eos = false;
  bool json = false;
};

// Collects one request's tokens, printing text as it comes unless asked for JSON.
class Collector final : public RequestListener {
 public:
  Collector(Engine& engine, const GenerateFlags& flags)
      : engine_(engine), stream_text_(!flags.json) {
    if (engine.model().tokenizer() != nullptr) {
      text_ = std::make_unique<TextStream>(*engine.model().tokenizer(), flags.stops);
    }
  }

  void OnToken(const TokenEvent& event) override {
    if (text_ && text_->stopped()) return;
    ids.push_back(event.id);
    // The end-of-turn token ends the text; it is not part of it.
    if (text_) Emit(text_->Add(event.id));
    if (text_ && text_->stopped()) engine_.Cancel(request);
  }

  void OnDone(FinishReason done, const std::string& message,
              const RequestStats& done_stats) override {
    if (text_) Emit(text_->Finish());
    reason = text_ && text_->stopped() ? FinishReason::kStop : done;
    error = message;
    stats = done_stats;
  }

  RequestId request = 0;
  std::vector<int32_t> ids;
  std::string text;
  FinishReason reason = FinishReason::kError;
  std::string error;
  RequestStats stats;

 private:
  void Emit(const std::string& piece) {
    text += piece;
    if (stream_text_) PrintOut(piece);
  }
  Engine& engine_;
  bool stream_text_;
  std::unique_ptr<TextStream> text_;
};

nlohmann::json PhaseJson(const PhaseStats& phase) {
  return {{"steps", phase.steps},
          {"step_time_ns", phase.step_time.value},
          {"link_bytes", phase.link_bytes.value},
          {"link_busy_ns", phase.link_busy.value},
          {"exposed_comm_ns", phase.exposed_comm.value}};
}

nlohmann::json ResultJson(const Engine& engine, const std::vector<int32_t>& prompt,
                          const Collector& result) {
  const EngineInfo& info = engine.info();
  nlohmann::json json{{"prompt_ids", prompt},
                      {"token_ids", result.ids},
                      {"text", result.text},
                      {"finish_reason", ToString(result.reason)},
                      {"plugin", info.planned.plan.plugin},
                      {"plugin_requested", info.planned.requested},
                      {"plan_hash", info.planned.plan_hash},
                      {"fidelity", ToString(info.fidelity)},
                      {"ops", info.ops_name},
                      {"activations", ToString(info.activations)},
                      {"prefill", PhaseJson(result.stats.prefill)},
                      {"decode", PhaseJson(result.stats.decode)}};
  for (const auto& [key, word] : ToldSwitches(engine.options().gpu)) json[key] = word;
  return json;
}

std::vector<int32_t> ParseIds(const std::vector<std::string>& words) {
  std::vector<int32_t> ids;
  for (const std::string& word : words) {
    for (size_t at = 0; at <= word.size();) {
      const size_t comma = std::min(word.find(',', at), word.size());
      int32_t id = 0;
      const auto [end, error] = std::from_chars(word.data() + at, word.data() + comma, id);
      if (error != std::errc() || end != word.data() + comma || id < 0) {
        Fail(ErrorCode::kInvalidArgument,
             fmt::format("--prompt-ids: got '{}', want token ids such as 1,2,3", word));
      }
      ids.push_back(id);
      at = comma + 1;
    }
  }
  return ids;
}

// Whether it ended for want of room, with tokens still asked for.
bool ContextWasFull(const Collector& result, const GenerateFlags& flags) {
  return result.reason == FinishReason::kLength && result.ids.size() < flags.max_tokens;
}

// What the steps took on this machine, whatever the engine's clock.
class WallTimes final : public StepObserver {
 public:
  void OnStep(const StepReport& report) override {
    (report.phase == ProgramKind::kPrefill ? prefill : decode) += report.wall;
  }
  Nanos prefill, decode;
};

std::string Rate(uint64_t tokens, Nanos time) {
  if (tokens == 0 || time.value <= 0) return "-";
  return fmt::format("{:.1f} tokens/s", static_cast<double>(tokens) / time.Seconds());
}

void PrintSummary(const Engine& engine, const Collector& result, const WallTimes& wall) {
  const RequestStats& stats = result.stats;
  const EngineInfo& info = engine.info();
  const uint64_t decoded = result.ids.empty() ? 0 : result.ids.size() - 1;
  const uint32_t devices = info.planned.plan.n_devices;
  const std::string what = fmt::format("{} | plugin {} | {} device{}", ToString(info.fidelity),
                                       info.planned.plan.plugin, devices, devices == 1 ? "" : "s");
  if (engine.options().rig.is_this_machine) {
    PrintNote(fmt::format("\n[{} | prompt {} tokens, {} | decode {}]", what, stats.prompt_tokens,
                          Rate(stats.prompt_tokens, stats.first_token - stats.prefill_start),
                          Rate(decoded, stats.done - stats.first_token)));
    return;
  }
  // The steps of an emulated rig have two lengths, of which only one is the rig's.
  PrintNote(
      fmt::format("\n[{} | rig {}, in rig time: prompt {} tokens, {} | decode {}]\n"
                  "[computed by this machine's CPU, on its wall clock: prompt {} | decode {}]",
                  what, engine.options().rig.name, stats.prompt_tokens,
                  Rate(stats.prompt_tokens, stats.prefill.step_time),
                  Rate(stats.decode.steps, stats.decode.step_time),
                  Rate(stats.prompt_tokens, wall.prefill), Rate(stats.decode.steps, wall.decode)));
}

int Generate(const GenerateFlags& flags) {
  ConsoleLog log(flags.engine.verbose);
  if (flags.prompt_ids.empty() && IsGenerated(flags.engine.model)) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("generate: {} would get random weights and has no tokenizer; give token ids "
                     "with --prompt-ids 1,2,3, or a model with a vocabulary",
                     flags.engine.model));
  }
  std::shared_ptr<const Model> model = OpenModel(flags.engine.model);
  std::vector<int32_t> prompt = ParseIds(flags.prompt_ids);
  if (prompt.empty()) {
    if (model->tokenizer() == nullptr) {
      Fail(ErrorCode::kInvalidArgument,
           "generate: this model has no vocabulary; give token ids with --prompt-ids 1,2,3");
    }
    const Tokenizer& tokenizer = *model->tokenizer();
    prompt =
        tokenizer.Encode(flags.prompt, {.parse_special = true, .add_bos = tokenizer.adds_bos()});
  }
  std::unique_ptr<Engine> engine =
      Engine::Create(flags.engine.MakeOptions(model, "single", 2048, 1, &log));
  auto collector = std::make_shared<Collector>(*engine, flags);
  Request request;
  request.prompt = prompt;
  request.max_tokens = flags.max_tokens;
  request.ignore_eos = flags.ignore_eos;
  request.sampling.temperature = flags.temperature;
  request.sampling.top_k = flags.top_k;
  request.sampling.top_p = flags.top_p;
  request.sampling.min_p = flags.min_p;
  request.sampling.seed = flags.seed;
  WallTimes wall;
  engine->AddObserver(&wall);
  collector->request = engine->Submit(request, collector);
  while (engine->HasWork()) engine->Step();
  engine->RemoveObserver(&wall);
  if (collector->reason == FinishReason::kError) Fail(ErrorCode::kFailure, collector->error);
  if (flags.json) {
    nlohmann::json json = ResultJson(*engine, prompt, *collector);
    json["context_full"] = ContextWasFull(*collector, flags);
    PrintJson(json);
  } else if (model->tokenizer() == nullptr) {
    PrintLine(fmt::format("{}", nlohmann::json(collector->ids).dump()));
    PrintSummary(*engine, *collector, wall);
  } else {
    PrintOut("\n");
    PrintSummary(*engine, *collector, wall);
  }
  if (ContextWasFull(*collector, flags)) {
    PrintNote(
        fmt::format("the context of {} tokens was full after {} of {} tokens; give a larger "
                    "-c{}",
                    engine->options().limits.context, collector->ids.size(), flags.max_tokens,
                    fmt::format(", up to the model's own {}", model->config().context)));
  }
  return kExitOk;
}

}  // namespace

void AddGenerateCommand(CLI::App& root, Action& action) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* app = root.add_subcommand("generate", "Complete one prompt");
  app->footer(
      "Examples:\n"
      "  tandem generate -p \"Two cards and a bridge\" -n 48\n"
      "  tandem generate -p \"Hi\" -n 16 --plugin tensor_split --devices 2 --json\n"
      "  tandem generate -m synthetic:h=256,l=4,heads=8 --prompt-ids 1,2,3 -n 8 --temp 0");
  flags->engine.AddModel(*app);
  flags->engine.AddPlan(*app);
  flags->engine.AddCompute(*app);
  CLI::Option* text = app->add_option("-p,--prompt", flags->prompt,
                                      "Raw text; special tokens in it are parsed, no template");
  app->add_option("--prompt-ids", flags->prompt_ids, "Token ids instead of text")->excludes(text);
  app->add_option("-n,--predict,--n-predict", flags->max_tokens, "Tokens to generate at most")
      ->capture_default_str();
  app->add_option("--temp,--temperature", flags->temperature, "0: greedy")->capture_default_str();
  app->add_option("--top-k", flags->top_k, "0: off")->capture_default_str();
  app->add_option("--top-p", flags->top_p)->capture_default_str();
  app->add_option("--min-p", flags->min_p)->capture_default_str();
  app->add_option("-s,--seed", flags->seed)->capture_default_str();
  app->add_option("-r,--stop,--reverse-prompt", flags->stops, "Stop string; repeatable");
  app->add_flag("--ignore-eos", flags->ignore_eos, "Go on past end-of-generation tokens");
  app->add_flag("--json", flags->json, "One JSON object on stdout");
  app->callback([flags, app, &action] {
    if (flags->prompt.empty() && flags->prompt_ids.empty()) {
      throw CLI::RequiredError("-p/--prompt or --prompt-ids");
    }
    action = [flags] { return Generate(*flags); };
  });
}

}  // namespace tandem
