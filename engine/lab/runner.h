// Runs a scenario's cells and appends their records.
//
// Cells are interleaved: repetition r of every cell runs before repetition r+1 of any, in file
// order or shuffled by the seed. Cells that differ by the link alone and give the same plan hash
// share one run a repetition: its op times are laid on each link's timeline, so that links differ
// by nothing else (closed, fixed work only; an open loop or a different plan hash runs anew).
//
//   Runner runner(options);
//   RunSummary summary = runner.Run(scenario);
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/base/log.h"
#include "engine/lab/record.h"
#include "engine/lab/scenario.h"
#include "engine/lab/workload.h"
#include "engine/run/gpu_share.h"

namespace tandem {

struct RunnerOptions {
  PlannerOptions planner;
  std::vector<std::string> catalogue_roots;
  // Turns a scenario's model name into a model: names the command line knows, paths,
  // "synthetic:...", catalogue shapes. `shape_only` asks for shapes without data.
  std::function<std::shared_ptr<const Model>(const std::string& name, bool shape_only)> load_model;
  GpuShareOption gpu_share;  // how a GPU that a rig names several times is cut
  std::string results_file;  // .jsonl to append to
  bool resume = false;       // skip cells and repetitions whose records are there
  std::string tandem_version;
  LogSink* log = &NullLog();
  std::function<void(const std::string& why)> on_device_lost;  // as EngineOptions has it
  // Called after each record: records done, records in all, and the record.
  std::function<void(size_t done, size_t total, const Record&)> on_record;
  StartServer start_server;  // for workloads with client: http; tools/ offers one
  // Polled between runs and between a phase's steps; true stops with what is written.
  std::function<bool()> interrupted;
};

struct RunSummary {
  size_t written = 0;
  size_t skipped = 0;           // there already
  size_t earlier = 0;           // of this scenario in the file before
  size_t refused = 0;           // recorded as not fitting
  size_t remaining = 0;         // after an interrupt
  std::vector<Record> records;  // those written now
};

// What --dry-run lists: each cell with its predicted steps and a guess of the wall time.
struct DryRunRow {
  Cell cell;
  std::string plugin;  // chosen under auto
  std::string plan_hash;
  std::string refused;
  PredictedResult predicted;
  bool shares_run = false;  // its op times come from another cell's run
};

class Runner {
 public:
  explicit Runner(RunnerOptions options);
  RunSummary Run(const Scenario& scenario);
  std::vector<DryRunRow> DryRun(const Scenario& scenario);

 private:
  RunnerOptions options_;
};

}  // namespace tandem
