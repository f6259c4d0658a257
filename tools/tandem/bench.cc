// tandem bench: prompt and generation speed on the wall clock, in llama-bench's terms.
//
// A prompt row times the prefill of n_prompt random tokens in each of n_seq sequences; a generation
// row times n_gen single-token steps of n_seq sequences from an empty context. Rates total all
// sequences; tokenising and text are not part of it, sampling (greedy) is. With -d a generation row
// starts behind so many tokens, whose prefill is not timed. With --probe it also says how near it
// came to the rate at which the same threads read as many bytes.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/device/cpu/thread_pool.h"
#include "engine/run/engine.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/engine_flags.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"
#include "tools/tandem/read_probe.h"

namespace tandem {
namespace {

constexpr int kMostTokens = 1 << 24;  // of a row's sequence

struct BenchFlags {
  EngineFlags engine;
  std::vector<uint32_t> prompts{512};
  std::vector<uint32_t> gens{128};
  std::vector<uint32_t> depths{0};
  std::vector<uint32_t> sequences{1};
  uint32_t repetitions = 5;
  bool no_warmup = false;
  bool probe = false;
  bool json = false;
  std::string output;  // llama-bench's -o: md or json
};

struct BenchRow {
  uint32_t n_prompt = 0, n_gen = 0, n_depth = 0, n_seq = 1;
  // Tokens that a sequence may generate before the last one has read its past; the first comes with
  // a past's last rows.
  uint32_t ahead = 0;
  std::vector<double> samples_ns;
  double step_bytes = 0;                  // what one step must read; 0: not asked for
  std::vector<double> probe_bytes_per_s;  // of passes over as many bytes, among the steps
  // Of a sequence at its end.
  uint64_t Context() const {
    return uint64_t{n_gen == 0 ? n_prompt : std::max(n_depth, 1u)} + n_gen + ahead + 1;
  }
  uint64_t tokens() const { return uint64_t{n_seq} * (n_prompt + n_gen); }
  // "pp512", "tg128", "tg128 @ d4000": llama-bench's names.
  std::string Name() const {
    if (n_gen == 0) return fmt::format("pp{}", n_prompt);
    return n_depth == 0 ? fmt::format("tg{}", n_gen) : fmt::format("tg{} @ d{}", n_gen, n_depth);
  }
};

// Adds up the lengths of a row's steps; with a probe, reads memory once every few steps, between
// them. Behind a past the first n_gen steps count in which all sequences generate.
class StepTimer final : public StepObserver {
 public:
  StepTimer(const BenchRow& row, ReadProbe* probe) : row_(row), probe_(probe) {}
  void OnStep(const StepReport& report) override {
    if (row_.n_depth > 0 && (report.phase != ProgramKind::kDecode ||
                             report.sequences < row_.n_seq || steps == row_.n_gen)) {
      return;
    }
    total += report.end - report.start;
    ++steps;
    if (probe_ != nullptr && steps % kStepsPerProbe == 0) {
      probe_rates.push_back(probe_->BytesPerSecond());
    }
  }
  Nanos total;
  uint32_t steps = 0;
  std::vector<double> probe_rates;

 private:
  static constexpr uint32_t kStepsPerProbe = 8;
  const BenchRow& row_;
  ReadProbe* probe_;
};

class Ignore final : public RequestListener {
 public:
  void OnToken(const TokenEvent&) override {}
  void OnDone(FinishReason reason, const std::string& error, const RequestStats&) override {
    if (reason == FinishReason::kError) Fail(ErrorCode::kFailure, "bench: " + error);
  }
};

// Runs `n_seq` requests of `prompt` tokens generating `gen`; `timer` is told of all steps.
void RunRequests(Engine& engine, uint32_t n_seq, uint32_t prompt, uint32_t gen,
                 std::mt19937& random, StepTimer& timer) {
  engine.AddObserver(&timer);
  std::uniform_int_distribution<int32_t> token(
      0, static_cast<int32_t>(engine.model().config().vocab) - 1);
  for (uint32_t s = 0; s < n_seq; ++s) {
    Request request;
    for (uint32_t i = 0; i < prompt; ++i) request.prompt.push_back(token(random));
    request.max_tokens = gen;
    request.ignore_eos = true;
    engine.Submit(request, std::make_shared<Ignore>());
  }
  while (engine.HasWork()) engine.Step();
  engine.RemoveObserver(&timer);
}

void RunRow(Engine& engine, const BenchRow& row, std::mt19937& random, StepTimer& timer) {
  // A prompt row ends with the one token its last row samples; a generation row starts from the one
  // token that a sequence must begin with, so its n_gen steps are all of one token.
  if (row.n_gen == 0) {
    RunRequests(engine, row.n_seq, row.n_prompt, 1, random, timer);
  } else {
    const bool empty = row.n_depth == 0;
    RunRequests(engine, row.n_seq, empty ? 1 : row.n_depth, row.n_gen + row.ahead, random, timer);
  }
}

// The weights as stored, less an embedding of which a step looks up a few rows only, and the keys
// and values at the row's mean context.
double StepBytes(const Model& model, const BenchRow& row) {
  double weights = static_cast<double>(model.weight_bytes().value);
  if (!model.config().tied_embedding) {
    weights -= static_cast<double>(model.token_embedding().bytes());
  }
  double kv_per_token = 0;
  for (const Block& block : model.blocks().blocks) {
    kv_per_token += static_cast<double>(block.KvBytesPerToken(block.AllUnits()).value);
  }
  return weights + kv_per_token * row.n_seq * (row.n_depth + (row.n_gen + 1) / 2.0);
}

void TimeRow(Engine& engine, BenchRow& row, ReadProbe* probe, std::mt19937& random) {
  StepTimer timer(row, row.n_gen == 0 ? nullptr : probe);
  RunRow(engine, row, random, timer);
  Check(row.n_depth == 0 || timer.steps == row.n_gen, "bench: every step behind a past is timed");
  row.samples_ns.push_back(static_cast<double>(timer.total.value));
  row.probe_bytes_per_s.insert(row.probe_bytes_per_s.end(), timer.probe_rates.begin(),
                               timer.probe_rates.end());
}

double Mean(const std::vector<double>& v) {
  return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
}

double SampleStdDev(const std::vector<double>& v) {
  if (v.size() < 2) return 0;
  double mean = Mean(v), sum = 0;
  for (double x : v) sum += (x - mean) * (x - mean);
  return std::sqrt(sum / static_cast<double>(v.size() - 1));
}

std::vector<double> RatesOf(const BenchRow& row) {
  std::vector<double> rates;
  for (double ns : row.samples_ns) rates.push_back(static_cast<double>(row.tokens()) * 1e9 / ns);
  return rates;
}

double MedianOf(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// The median step's share of the median pass of the probe; 0 without one.
double ReadShare(const BenchRow& row) {
  const double read = MedianOf(row.probe_bytes_per_s);
  const double step_s = MedianOf(row.samples_ns) * 1e-9 / std::max(row.n_gen, 1u);
  return read > 0 ? row.step_bytes / step_s / read : 0;
}

nlohmann::json RowJson(const BenchRow& row, const Engine& engine, const std::string& model_name) {
  std::vector<double> rates = RatesOf(row);
  const EngineInfo& info = engine.info();
  nlohmann::json json = {{"model", model_name},
                         {"model_filename", engine.model().source()},
                         {"model_size", engine.model().weight_bytes().value},
                         {"plugin", info.planned.plan.plugin},
                         {"plan_hash", info.planned.plan_hash},
                         {"n_devices", info.planned.plan.n_devices},
                         {"backends", info.ops_name},
                         {"activations", ToString(info.activations)},
                         {"launch", ToString(info.launch)},
                         {"collectives", info.collectives()},
                         {"n_threads", info.threads},
                         {"fidelity", ToString(info.fidelity)},
                         {"rig", engine.options().rig.name},
                         {"clock", "wall"},
                         {"n_prompt", row.n_prompt},
                         {"n_gen", row.n_gen},
                         {"n_depth", row.n_depth},
                         {"n_parallel", row.n_seq},
                         {"avg_ns", Mean(row.samples_ns)},
                         {"stddev_ns", SampleStdDev(row.samples_ns)},
                         {"avg_ts", Mean(rates)},
                         {"stddev_ts", SampleStdDev(rates)},
                         {"samples_ns", row.samples_ns},
                         {"samples_ts", rates}};
  for (const auto& [key, word] : ToldSwitches(engine.options().gpu)) json[key] = word;
  if (!info.nccl_windows.empty()) json["nccl_windows"] = info.nccl_windows;
  if (!row.probe_bytes_per_s.empty()) {
    json["step_bytes"] = row.step_bytes;
    json["read_probe_bytes_per_s"] = MedianOf(row.probe_bytes_per_s);
    json["read_share"] = ReadShare(row);
  }
  return json;
}

std::vector<BenchRow> RowsOf(const BenchFlags& flags) {
  std::vector<BenchRow> rows;
  for (uint32_t n_seq : flags.sequences) {
    for (uint32_t n : flags.prompts) {
      if (n > 0) rows.push_back({.n_prompt = n, .n_gen = 0, .n_seq = n_seq, .samples_ns = {}});
    }
    for (uint32_t depth : flags.depths) {
      for (uint32_t n : flags.gens) {
        if (n == 0) continue;
        BenchRow row{.n_gen = n, .n_depth = depth, .n_seq = n_seq, .samples_ns = {}};
        // A prompt's step may be followed by one of the sequences that are done with theirs.
        const uint64_t prefill_steps =
            (uint64_t{depth} * n_seq + flags.engine.step_tokens - 1) / flags.engine.step_tokens +
            n_seq;
        if (depth > 0) row.ahead = static_cast<uint32_t>(prefill_steps);
        rows.push_back(std::move(row));
      }
    }
  }
  return rows;
}

// The engine that all rows run on, with slots and context for the largest.
std::unique_ptr<Engine> MakeEngine(const BenchFlags& flags, std::span<const BenchRow> rows,
                                   ConsoleLog& log) {
  uint32_t slots = 1;
  uint64_t longest = 1;
  for (const BenchRow& row : rows) {
    slots = std::max(slots, row.n_seq);
    longest = std::max(longest, row.Context());
  }
  EngineFlags engine_flags = flags.engine;
  if (!engine_flags.clock.empty() && engine_flags.clock != "wall") {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("bench: --clock {}: bench times the wall clock; for rig time use `tandem run` "
                     "or `tandem predict`",
                     engine_flags.clock));
  }
  if (engine_flags.slots == 0) engine_flags.slots = slots;
  if (engine_flags.context == 0) {
    const uint64_t context = engine_flags.slots * ((longest + 63) / 64 * 64);
    engine_flags.context = static_cast<uint32_t>(std::min<uint64_t>(context, UINT32_MAX));
  }
  if (longest > engine_flags.context / engine_flags.slots) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("bench: a row takes {} tokens of context a sequence, and a slot has {} (-c {} "
                     "over {} slots); give a larger -c, or smaller -p, -n or -d",
                     longest, engine_flags.context / engine_flags.slots, engine_flags.context,
                     engine_flags.slots));
  }
  EngineOptions options = engine_flags.MakeOptions(OpenModel(flags.engine.model), "single",
                                                   static_cast<uint32_t>(longest), slots, &log);
  options.clock = ClockKind::kWall;
  std::unique_ptr<Engine> engine = Engine::Create(std::move(options));
  const bool behind =
      std::any_of(rows.begin(), rows.end(), [](const BenchRow& row) { return row.n_depth > 0; });
  if (behind && engine->info().planned.plan.n_lanes > 1) {
    Fail(
        ErrorCode::kInvalidArgument,
        fmt::format("bench: -d times steps of all sequences, and plugin {} serves them on {} lanes "
                    "apart; leave -d out, or take another plugin",
                    engine->info().planned.plan.plugin, engine->info().planned.plan.n_lanes));
  }
  return engine;
}

void TimeRows(Engine& engine, const BenchFlags& flags, std::span<BenchRow> rows) {
  std::mt19937 random(1);
  ProgressBar progress;
  size_t done = 0;
  const size_t total = rows.size() * flags.repetitions;
  for (BenchRow& row : rows) {
    std::unique_ptr<ReadProbe> probe;
    if (flags.probe && row.n_gen > 0) {
      row.step_bytes = StepBytes(engine.model(), row);
      probe =
          std::make_unique<ReadProbe>(engine.info().threads, static_cast<size_t>(row.step_bytes));
    }
    if (!flags.no_warmup) {
      BenchRow warmup = row;
      TimeRow(engine, warmup, nullptr, random);
    }
    for (uint32_t r = 0; r < flags.repetitions; ++r) {
      TimeRow(engine, row, probe.get(), random);
      progress.Update(++done, total, row.Name());
    }
  }
}

std::string RowsTable(const Engine& engine, std::span<const BenchRow> rows, bool probed) {
  std::vector<std::vector<std::string>> table{
      {"test", "n_parallel", "plugin", "threads", "tokens/s"}};
  if (probed) table.front().insert(table.front().end(), {"read GB/s", "of probe"});
  for (const BenchRow& row : rows) {
    const std::vector<double> rates = RatesOf(row);
    table.push_back({row.Name(), fmt::format("{}", row.n_seq), engine.info().planned.plan.plugin,
                     fmt::format("{}", engine.info().threads),
                     fmt::format("{:.2f} +- {:.2f}", Mean(rates), SampleStdDev(rates))});
    if (!probed) continue;
    if (row.probe_bytes_per_s.empty()) {
      table.back().insert(table.back().end(), {"-", "-"});
      continue;
    }
    const double read = MedianOf(row.probe_bytes_per_s);
    table.back().push_back(fmt::format("{:.1f}", ReadShare(row) * read * 1e-9));
    table.back().push_back(fmt::format("{:.2f}", ReadShare(row)));
  }
  return FormatTable(table);
}

int Bench(const BenchFlags& flags) {
  ConsoleLog log(flags.engine.verbose);
  std::vector<BenchRow> rows = RowsOf(flags);
  if (rows.empty()) Fail(ErrorCode::kInvalidArgument, "bench: nothing to time (-p 0 and -n 0)");
  const std::unique_ptr<Engine> engine = MakeEngine(flags, rows, log);
  TimeRows(*engine, flags, rows);
  if (!flags.json && flags.output != "json") {
    if (const Rig& rig = engine->options().rig; !rig.is_this_machine) {
      PrintLine(
          fmt::format("rates are of this machine's CPU on its wall clock, which computes the split "
                      "of rig {}; for rates in rig time: tandem run, tandem predict or tandem "
                      "generate --rig {}",
                      rig.name, rig.name));
    }
    PrintOut(RowsTable(*engine, rows, flags.probe));
    return kExitOk;
  }
  nlohmann::json array = nlohmann::json::array();
  for (const BenchRow& row : rows) array.push_back(RowJson(row, *engine, flags.engine.model));
  PrintJson(array);
  return kExitOk;
}

}  // namespace

void AddBenchCommand(CLI::App& root, Action& action) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* app = root.add_subcommand("bench", "Prompt and generation speed on the wall clock");
  app->footer(
      "Examples:\n"
      "  tandem bench\n"
      "  tandem bench -p 512 -n 128 -npl 1,8,32 -t 2 --json\n"
      "  tandem bench -p 0 -n 64 -d 0,4000 --probe");
  flags->engine.AddModel(*app);
  flags->engine.AddPlan(*app);
  flags->engine.AddCompute(*app);
  app->add_option("-p,--n-prompt", flags->prompts, "Prompt tokens; 0 leaves the row out")
      ->delimiter(',')
      ->check(CLI::Range(0, kMostTokens))
      ->capture_default_str();
  app->add_option("-n,--n-gen", flags->gens, "Tokens to generate; 0 leaves the row out")
      ->delimiter(',')
      ->check(CLI::Range(0, kMostTokens))
      ->capture_default_str();
  app->add_option("-d,--n-depth", flags->depths,
                  "Tokens already in the context when generation starts")
      ->delimiter(',')
      ->check(CLI::Range(0, kMostTokens))
      ->capture_default_str();
  app->add_option("--npl,--n-seq", flags->sequences, "Sequences at once")
      ->delimiter(',')
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app->add_option("-r,--repetitions", flags->repetitions, "Times that a row is timed")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app->add_flag("--no-warmup", flags->no_warmup, "Time the first run too");
  app->add_flag("--probe", flags->probe,
                "Read as many bytes as a generation step does, between steps, and say the share");
  app->add_option("-o,--output", flags->output, "md or json")->check(CLI::IsMember({"md", "json"}));
  app->add_flag("--json", flags->json, "A JSON array on stdout");
  app->callback([flags, &action] { action = [flags] { return Bench(*flags); }; });
}

}  // namespace tandem
