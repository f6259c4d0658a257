// tandem run: a scenario's cells, swept, recorded and resumable.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string_view>

#include "engine/base/error.h"
#include "engine/lab/cell_label.h"
#include "engine/lab/runner.h"
#include "engine/run/gpu_share.h"
#include "engine/serve/server.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

struct RunFlags {
  std::string scenario;
  std::string out;
  std::vector<std::string> overrides;
  bool dry_run = false;
  bool resume = false;
  bool json = false;
  bool verbose = false;
  std::string gpu_share = "auto";
};

// Set by the first SIGINT or SIGTERM; the runner stops between steps. A second one, either of them,
// ends the process.
volatile std::sig_atomic_t g_interrupted = 0;

void OnSignal(int) {
  g_interrupted = 1;
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  static constexpr std::string_view kSaid = "\nstopping...; again to stop now\n";
  // A handler may not print by other means; what a broken stderr misses is no loss.
  [[maybe_unused]] ssize_t written = write(STDERR_FILENO, kSaid.data(), kSaid.size());
}

std::string CellLabel(const Record& record) {
  std::string label;
  for (const auto& [axis, value] : record.cell) {
    label += (label.empty() ? "" : ", ") + AxisLabel(axis, value);
  }
  return label.empty() ? record.plugin : label;
}

std::string Percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

// Median of one number over a cell's repetitions.
double MedianOf(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  size_t mid = values.size() / 2;
  return values.size() % 2 == 1 ? values[mid] : (values[mid - 1] + values[mid]) / 2;
}

struct CellSummary {
  Record first;
  std::vector<double> prefill_rate, prefill_share, decode_rate, decode_share, decode_ms;
  std::vector<double> ttft_ms, tpot_ms, output_rate;
};

std::vector<CellSummary> Summarize(const std::vector<Record>& records) {
  std::vector<CellSummary> cells;
  std::map<std::string, size_t> index;
  for (const Record& r : records) {
    std::string key = CellLabel(r);
    auto [it, added] = index.try_emplace(key, cells.size());
    if (added)
      cells.push_back({.first = r,
                       .prefill_rate = {},
                       .prefill_share = {},
                       .decode_rate = {},
                       .decode_share = {},
                       .decode_ms = {},
                       .ttft_ms = {},
                       .tpot_ms = {},
                       .output_rate = {}});
    CellSummary& cell = cells[it->second];
    if (r.prefill) {
      cell.prefill_rate.push_back(r.prefill->tokens_per_s);
      cell.prefill_share.push_back(r.prefill->link_share);
    }
    if (r.decode) {
      cell.decode_rate.push_back(r.decode->tokens_per_s);
      cell.decode_share.push_back(r.decode->link_share);
      cell.decode_ms.push_back(r.decode->steps == 0 ? 0
                                                    : r.decode->time.Millis() / r.decode->steps);
    }
    if (r.serve) {
      cell.ttft_ms.push_back(r.serve->ttft_ms.p50);
      cell.tpot_ms.push_back(r.serve->tpot_ms.p50);
      cell.output_rate.push_back(r.serve->output_tokens_per_s);
    }
  }
  return cells;
}

void PrintSummary(const std::vector<Record>& records) {
  std::vector<std::vector<std::string>> phases{
      {"cell", "prefill tok/s", "link share", "decode tok/s", "link share", "ms/step", "fidelity"}};
  std::vector<std::vector<std::string>> loads{
      {"cell", "output tok/s", "TTFT p50 ms", "TPOT p50 ms", "fidelity"}};
  for (const CellSummary& cell : Summarize(records)) {
    const Record& r = cell.first;
    if (!r.refused.empty()) {
      phases.push_back(
          {CellLabel(r), RefusalLabel(r.refused), "-", "-", "-", "-", ToString(r.fidelity)});
    } else if (r.serve) {
      loads.push_back({CellLabel(r), fmt::format("{:.1f}", MedianOf(cell.output_rate)),
                       fmt::format("{:.3g}", MedianOf(cell.ttft_ms)),
                       fmt::format("{:.3g}", MedianOf(cell.tpot_ms)), ToString(r.fidelity)});
    } else {
      phases.push_back(
          {CellLabel(r), r.prefill ? fmt::format("{:.0f}", MedianOf(cell.prefill_rate)) : "-",
           r.prefill ? Percent(MedianOf(cell.prefill_share)) : "-",
           r.decode ? fmt::format("{:.1f}", MedianOf(cell.decode_rate)) : "-",
           r.decode ? Percent(MedianOf(cell.decode_share)) : "-",
           r.decode ? fmt::format("{:.3g}", MedianOf(cell.decode_ms)) : "-", ToString(r.fidelity)});
    }
  }
  if (phases.size() > 1) PrintOut(FormatTable(phases));
  if (loads.size() > 1) PrintOut(FormatTable(loads));
}

int PrintDryRun(const Scenario& scenario, const std::vector<DryRunRow>& rows, bool json) {
  nlohmann::json array = nlohmann::json::array();
  std::vector<std::vector<std::string>> table{
      {"cell", "plugin", "plan", "prefill tok/s", "decode tok/s", ""}};
  for (const DryRunRow& row : rows) {
    std::string label;
    nlohmann::json axes = nlohmann::json::object();
    for (const auto& [axis, value] : row.cell.axes) {
      label += (label.empty() ? "" : ", ") + AxisLabel(axis, value);
      axes[axis] = value;
    }
    auto number = [](const std::optional<double>& v) {
      return v ? fmt::format("{:.1f}", *v) : std::string("-");
    };
    table.push_back({label, row.plugin, row.plan_hash.substr(0, 12),
                     number(row.predicted.prefill_tokens_per_s),
                     number(row.predicted.decode_tokens_per_s),
                     !row.refused.empty() ? RefusalLabel(row.refused)
                     : row.shares_run     ? "shares a run"
                                          : ""});
    array.push_back({{"cell", axes},
                     {"plugin", row.plugin},
                     {"plan_hash", row.plan_hash},
                     {"refused", row.refused},
                     {"shares_run", row.shares_run}});
  }
  if (json) {
    PrintJson({{"scenario", scenario.name},
               {"question", scenario.question},
               {"repetitions", scenario.repetitions},
               {"cells", array}});
  } else {
    PrintLine(fmt::format(
        "{}: {}\n{} cell{} x {} repetition{}; rates are PREDICTED, those of the rig, and "
        "say nothing of how long a run takes here\n",
        scenario.name, scenario.question, rows.size(), rows.size() == 1 ? "" : "s",
        scenario.repetitions, scenario.repetitions == 1 ? "" : "s"));
    PrintOut(FormatTable(table));
  }
  return kExitOk;
}

class LocalServer final : public RunningServer {
 public:
  explicit LocalServer(Engine& engine) : server_(engine, LocalOptions()) { server_.Start(); }
  ~LocalServer() override {
    server_.RequestShutdown();
    server_.Wait();
  }
  int port() const override { return server_.port(); }

 private:
  static ServerOptions LocalOptions() {
    ServerOptions options;
    options.port = 0;
    return options;
  }
  Server server_;
};

// results/<machine>/machine.yaml: the facts that every record of the folder shares.
void WriteMachineFile(const fs::path& folder) {
  fs::path path = folder / "machine.yaml";
  if (fs::exists(path)) return;
  std::ofstream file(path);
  nlohmann::json facts = MachineFacts();
  for (const auto& [key, value] : facts.items()) file << key << ": " << value.dump() << "\n";
  if (!file.flush()) Fail(ErrorCode::kIo, "run: cannot write " + path.string());
}

// As a shell reads it back.
std::string ShellWord(const std::string& word) {
  const bool plain = !word.empty() && std::ranges::all_of(word, [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("-_./=:,+@%").find(c) != std::string_view::npos;
  });
  if (plain) return word;
  std::string quoted = "'";
  for (char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

// The command that goes on with this one: every flag that says which cells there are and where
// their records lie.
std::string ResumeCommand(const RunFlags& flags) {
  std::string command = "tandem run " + ShellWord(flags.scenario);
  if (!flags.out.empty()) command += " -o " + ShellWord(flags.out);
  for (const std::string& text : flags.overrides) command += " --set " + ShellWord(text);
  if (flags.gpu_share != RunFlags().gpu_share) {
    command += " --gpu-share " + ShellWord(flags.gpu_share);
  }
  return command + " --resume";
}

int Run(const RunFlags& flags) {
  ConsoleLog log(flags.verbose);
  Scenario scenario = LoadScenario(flags.scenario, flags.overrides);
  fs::path folder =
      flags.out.empty() ? fs::path("results") / MachineFolderName() : fs::path(flags.out);
  RunnerOptions options;
  options.on_device_lost = [](const std::string&) { DeviceLost() = true; };
  options.planner = DefaultPlannerOptions();
  options.catalogue_roots = CatalogueRoots();
  options.load_model = OpenModel;
  options.gpu_share = ParseGpuShare(flags.gpu_share);
  options.results_file = (folder / (scenario.name + ".jsonl")).string();
  options.resume = flags.resume;
  options.tandem_version = TandemVersion();
  options.log = &log;
  options.start_server = [](Engine& engine) { return std::make_unique<LocalServer>(engine); };
  if (flags.dry_run) {
    return PrintDryRun(scenario, Runner(options).DryRun(scenario), flags.json);
  }
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    Fail(ErrorCode::kIo,
         fmt::format("run: cannot create {}: {}", folder.string(), error.message()));
  WriteMachineFile(folder);
  PrintNote(fmt::format("{}: {}", scenario.name, scenario.question));
  std::signal(SIGINT, OnSignal);
  std::signal(SIGTERM, OnSignal);
  options.interrupted = [] { return g_interrupted != 0; };
  RunSummary summary;
  {
    ProgressBar progress;
    options.on_record = [&](size_t done, size_t total, const Record& r) {
      progress.Update(done, total, CellLabel(r));
    };
    summary = Runner(options).Run(scenario);
  }
  if (flags.json) {
    nlohmann::json array = nlohmann::json::array();
    for (const Record& r : summary.records) array.push_back(ToJson(r));
    PrintJson({{"results", options.results_file},
               {"written", summary.written},
               {"skipped", summary.skipped},
               {"earlier", summary.earlier},
               {"refused", summary.refused},
               {"remaining", summary.remaining},
               {"records", array}});
  } else {
    PrintSummary(ReadRecords(options.results_file, nullptr));
    const std::string before = flags.resume ? fmt::format(", {} there already", summary.skipped)
                               : summary.earlier > 0
                                   ? fmt::format(", {} earlier record{} kept and counted in",
                                                 summary.earlier, summary.earlier == 1 ? "" : "s")
                                   : "";
    PrintLine(fmt::format("{} record{} written{}: {}", summary.written,
                          summary.written == 1 ? "" : "s", before, options.results_file));
  }
  if (summary.remaining > 0) {
    PrintNote(fmt::format("stopped with {} run{} left; go on with: {}", summary.remaining,
                          summary.remaining == 1 ? "" : "s", ResumeCommand(flags)));
    return kExitIncomplete;
  }
  return kExitOk;
}

}  // namespace

void AddRunCommand(CLI::App& root, Action& action) {
  auto flags = std::make_shared<RunFlags>();
  CLI::App* app = root.add_subcommand("run", "Sweep a scenario and record it");
  app->footer(
      "Examples:\n"
      "  tandem run scenarios/link_crossover.yaml --dry-run\n"
      "  tandem run scenarios/link_crossover.yaml --resume\n"
      "  tandem run scenarios/compare_plugins.yaml --set repetitions=5 --set "
      "phases.decode.sequences=8");
  app->add_option("scenario", flags->scenario, "Scenario file")->required();
  app->add_option("-o,--out", flags->out, "Results folder (default: results/<this machine>)");
  app->add_option("--set", flags->overrides, "Override a key: dotted.path=value; repeatable");
  app->add_option("--gpu-share", flags->gpu_share,
                  "A GPU that a rig names several times: auto, multiprocessors of each, or off")
      ->capture_default_str();
  app->add_flag("--dry-run", flags->dry_run,
                "List the cells and the rates that the rig is predicted to reach; run nothing");
  app->add_flag("--resume", flags->resume, "Run only what has no record yet");
  app->add_flag("--json", flags->json, "Records as JSON on stdout");
  app->add_flag("-v,--verbose", flags->verbose, "Say more on stderr");
  app->callback([flags, &action] { action = [flags] { return Run(*flags); }; });
}

}  // namespace tandem
