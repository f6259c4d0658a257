#include "engine/lab/runner.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <map>
#include <random>
#include <set>

#include "engine/base/error.h"
#include "engine/lab/arms.h"
#include "engine/lab/phases.h"
#include "engine/lab/switch_prices.h"
#include "engine/model/inspect.h"
#include "engine/run/gpu_rig.h"
#include "engine/run/gpu_share.h"
#include "engine/run/switch_rules.h"

namespace tandem {
namespace {

std::string UtcNow() {
  std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", utc.tm_year + 1900, utc.tm_mon + 1,
                     utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

// Tokens of the longest sequence that a cell is about, prompt and answer.
uint64_t LongestSequence(const Cell& cell) {
  uint64_t longest = 0;
  if (cell.prefill) longest = cell.prefill->tokens;
  if (cell.decode) {
    longest = std::max(longest, uint64_t{cell.decode->context} + cell.decode->tokens);
  }
  if (cell.workload) {
    const WorkloadSpec& spec = *cell.workload;
    longest = std::max(longest, uint64_t{spec.prompt_tokens} + spec.output_tokens);
  }
  return longest;
}

// A cell with everything known before it runs.
struct PlannedCell {
  Cell cell;
  std::shared_ptr<const Model> shape;
  Rig rig;
  PlannedRun run;
  std::string refused;
  std::optional<PhaseResult> prefill, decode;  // predicted
  std::string run_key;                         // cells with one key share a run
};

// "cuda:0,cuda:1": a list of this machine's devices.
bool NamesDevices(const Cell& cell) {
  return cell.rig.starts_with("cuda:") || cell.rig.starts_with("cpu:");
}

Rig RigOf(const Cell& cell, const Catalogue& catalogue) {
  if (cell.rig == "cpu") return ThisMachineRig(cell.devices == 0 ? 2 : cell.devices);
  Rig rig = catalogue.LoadRig(cell.rig);
  if (!cell.link.empty()) rig.link = catalogue.LoadLink(cell.link);
  if (cell.devices > rig.size()) {
    Fail(ErrorCode::kInvalidArgument, fmt::format("scenario: devices: rig {} has {}, not {}",
                                                  rig.name, rig.size(), cell.devices));
  }
  if (cell.devices != 0) rig.devices.resize(cell.devices);
  return rig;
}

PredictedResult PredictedOf(const PlannedCell& p) {
  PredictedResult r;
  if (p.prefill) {
    r.prefill_tokens_per_s = p.prefill->tokens_per_s;
    r.prefill_link_share = p.prefill->link_share;
  }
  if (p.decode) {
    r.decode_tokens_per_s = p.decode->tokens_per_s;
    r.decode_link_share = p.decode->link_share;
  }
  return r;
}

class Sweep {
 public:
  Sweep(const RunnerOptions& options, const Scenario& scenario)
      : options_(options),
        scenario_(scenario),
        catalogue_(options.catalogue_roots),
        arms_(options.load_model) {
    for (const Cell& cell : scenario.cells) cells_.push_back(Prepare(cell));
  }

  RunSummary Run() {
    RecordWriter writer(options_.results_file);
    writer_ = &writer;
    ReadWhatIsThere();
    RecordRefusals();
    for (uint32_t r = 0; r < scenario_.repetitions; ++r) {
      for (const std::vector<size_t>& group : Groups(r)) {
        if (options_.interrupted && options_.interrupted()) {
          summary_.remaining = Total() - done_;
          return summary_;
        }
        try {
          RunGroup(group, first_repetition_ + r);
        } catch (const Error& error) {
          // A repetition that was stopped in its middle is none; its engine goes unused.
          if (error.code() != ErrorCode::kCancelled) throw;
          summary_.remaining = Total() - done_;
          return summary_;
        }
      }
    }
    return summary_;
  }

  std::vector<DryRunRow> DryRun() const {
    std::vector<DryRunRow> rows;
    std::set<std::string> seen;
    for (const PlannedCell& p : cells_) {
      rows.push_back({p.cell, p.run.plan.plugin.empty() ? p.cell.plugin.name : p.run.plan.plugin,
                      p.run.plan_hash, p.refused, PredictedOf(p),
                      p.refused.empty() && !seen.insert(p.run_key).second});
    }
    return rows;
  }

 private:
  // ---- before the run

  PlannedCell Prepare(const Cell& cell) {
    PlannedCell p;
    p.cell = cell;
    p.shape = arms_.Shape(cell.model);
    CheckContext(cell, *p.shape);
    p.rig = NamesDevices(cell) ? MachineRigOf(cell) : RigOf(cell, catalogue_);
    DriveRig(p.rig, cell.gpu);
    if (!scenario_.predicted) CheckProducts(p.rig, cell.gpu.prefill_products);
    if (p.rig.is_this_machine && ClockOf(cell) == ClockKind::kVirtual && !scenario_.predicted) {
      Fail(ErrorCode::kInvalidArgument,
           fmt::format("scenario: clock: virtual time needs a rig; '{}', this machine, runs on the "
                       "wall clock (want clock: wall)",
                       p.cell.rig));
    }
    // A step's length here and its parts in rig time would not add up.
    if (!p.rig.is_this_machine && scenario_.clock == ClockKind::kWall && !cell.workload &&
        !scenario_.predicted) {
      Fail(
          ErrorCode::kInvalidArgument,
          fmt::format("scenario: clock: wall times phases on this machine (want rig: cpu), but rig "
                      "'{}' is emulated in rig time (want clock: virtual)",
                      p.rig.name));
    }
    const PlanProblem problem{.graph = &p.shape->blocks(),
                              .rig = &p.rig,
                              .limits = cell.limits,
                              .wire = cell.wire,
                              .path = cell.path,
                              .tensor_split = cell.tensor_split,
                              .devices_take_turns = DevicesTakeTurns(p.rig, ClockOf(cell))};
    try {
      p.run = Planner(options_.planner).MakePlan(cell.plugin.name, problem, cell.plugin.knobs);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kPlan) throw;
      p.refused = error.what();
      return p;
    }
    p.prefill = PredictPhase(p.shape->blocks(), p.run, p.rig, cell, ProgramKind::kPrefill);
    p.decode = PredictPhase(p.shape->blocks(), p.run, p.rig, cell, ProgramKind::kDecode);
    if (scenario_.predicted) p.refused = WhyNotPredicted(p);
    bool shareable = ClockOf(cell) == ClockKind::kVirtual && !cell.workload;
    p.run_key = EngineKey(p, shareable) + "|" + PhaseKey(cell);
    return p;
  }

  static void CheckContext(const Cell& cell, const Model& model) {
    const uint64_t most = model.config().context, longest = LongestSequence(cell);
    if (most == 0 || longest <= most) return;
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("scenario: a cell has sequences of {} tokens, and model {} was made for {}; "
                     "want fewer prompt, context or output tokens",
                     longest, cell.model, most));
  }

  // Of a cell that nothing will run: what an engine would refuse, or what has no price.
  static std::string WhyNotPredicted(const PlannedCell& p) {
    try {
      CheckSwitches(p.cell.gpu, p.rig, p.run.plan);
    } catch (const Error& error) {
      return error.what();
    }
    const bool all = (!p.cell.prefill || p.prefill) && (!p.cell.decode || p.decode);
    return all ? "" : WhyLibraryHasNoRate(p.rig);
  }

  // Made once: a GPU that stands for several devices is measured for it.
  const Rig& MachineRigOf(const Cell& cell) {
    if (cell.devices != 0) {
      Fail(ErrorCode::kInvalidArgument,
           fmt::format("scenario: devices: rig '{}' lists its devices; leave `devices` out",
                       cell.rig));
    }
    if (!cell.link.empty()) {
      Fail(ErrorCode::kInvalidArgument,
           fmt::format("scenario: link: rig '{}' is this machine, whose link is its own; leave "
                       "`link` out",
                       cell.rig));
    }
    const auto [it, added] = machine_rigs_.try_emplace(cell.rig);
    if (added) it->second = MachineRig(ParseDeviceList(cell.rig), options_.gpu_share);
    return it->second;
  }

  // HTTP runs on the wall clock, whatever the scenario's own.
  ClockKind ClockOf(const Cell& cell) const {
    bool http = cell.workload && cell.workload->client == "http";
    return http ? ClockKind::kWall : scenario_.clock;
  }

  static std::string PhaseKey(const Cell& c) {
    std::string key;
    if (c.prefill) key += fmt::format("p{}", c.prefill->tokens);
    if (c.decode)
      key += fmt::format("d{},{},{}", c.decode->context, c.decode->tokens, c.decode->sequences);
    if (c.workload) {
      key += fmt::format("w{},{},{},{},{},{},{}", c.workload->loop, c.workload->client,
                         c.workload->rate, c.workload->concurrency, c.workload->requests,
                         c.workload->prompt_tokens, c.workload->output_tokens);
    }
    return key;
  }

  std::string EngineKey(const PlannedCell& p, bool without_link) const {
    return fmt::format("{}|{}|{}|{}|{}|{}|{}|{}", ClockOf(p.cell) == ClockKind::kWall, p.cell.model,
                       without_link ? p.rig.FingerprintWithoutLinks() : p.rig.Fingerprint(),
                       p.run.plan_hash, ToString(p.cell.activations), SwitchWords(p.cell.gpu),
                       p.cell.limits.context, p.cell.limits.max_step_tokens);
  }

  // Cells in the order of this repetition, those that share a run together at the first one's
  // place.
  std::vector<std::vector<size_t>> Groups(uint32_t repetition) const {
    std::vector<std::vector<size_t>> groups;
    std::map<std::string, size_t> index;
    for (size_t i = 0; i < cells_.size(); ++i) {
      if (!cells_[i].refused.empty()) continue;
      auto [it, added] = index.try_emplace(cells_[i].run_key, groups.size());
      if (added) groups.emplace_back();
      groups[it->second].push_back(i);
    }
    if (scenario_.shuffled) {
      std::mt19937_64 random(scenario_.seed + repetition);
      for (size_t i = groups.size(); i > 1; --i) std::swap(groups[i - 1], groups[random() % i]);
    }
    return groups;
  }

  void ReadWhatIsThere() {
    if (!std::filesystem::exists(options_.results_file)) return;
    for (const Record& r : ReadRecords(options_.results_file, nullptr)) {
      if (r.scenario != scenario_.name) continue;
      ++summary_.earlier;
      there_.insert(r.Key());
      // Without --resume a second run adds repetitions; it never replaces any.
      if (!options_.resume) first_repetition_ = std::max(first_repetition_, r.repetition + 1);
    }
  }

  // ---- the run

  size_t Total() const {
    size_t refused = static_cast<size_t>(std::count_if(
        cells_.begin(), cells_.end(), [](const PlannedCell& p) { return !p.refused.empty(); }));
    return refused + (cells_.size() - refused) * scenario_.repetitions;
  }

  void Write(const Record& record) {
    if (there_.count(record.Key()) != 0) {
      ++summary_.skipped;
      ++done_;
      return;
    }
    writer_->Append(record);
    summary_.records.push_back(record);
    ++summary_.written;
    ++done_;
    if (options_.on_record) options_.on_record(done_, Total(), record);
  }

  void RecordRefusals() {
    for (const PlannedCell& p : cells_) {
      if (p.refused.empty()) continue;
      Record record = Header(p, first_repetition_);
      record.refused = p.refused;
      ++summary_.refused;
      Write(record);
    }
  }

  bool AllThere(const std::vector<size_t>& group, uint32_t repetition) const {
    return std::all_of(group.begin(), group.end(), [&](size_t i) {
      return there_.count(Header(cells_[i], repetition).Key()) != 0;
    });
  }

  void RunGroup(const std::vector<size_t>& group, uint32_t repetition) {
    if (AllThere(group, repetition)) {
      summary_.skipped += group.size();
      done_ += group.size();
      return;
    }
    if (scenario_.predicted) {
      for (size_t i : group) {
        Record record = Header(cells_[i], repetition);
        record.prefill = cells_[i].prefill;
        record.decode = cells_[i].decode;
        Write(record);
      }
      return;
    }
    const PlannedCell& first = cells_[group.front()];
    Engine& engine = EngineFor(first);
    uint64_t seed = scenario_.seed * 1000003 + repetition;
    if (first.cell.workload) {
      Record record = Header(first, repetition);
      record.serve =
          SumSamples(*first.cell.workload, RunWorkload(engine, *first.cell.workload, seed));
      FillFromEngine(record, engine);
      Write(record);
      return;
    }
    PhaseTraces traces = RunPhases(engine, first.cell, seed, options_.interrupted);
    for (size_t i : group) {
      const PlannedCell& p = cells_[i];
      bool own = p.rig.Fingerprint() == engine.options().rig.Fingerprint();
      Record record = Header(p, repetition);
      FillFromEngine(record, engine);
      if (p.cell.prefill)
        record.prefill =
            SumPhase(engine, traces.prefill, ProgramKind::kPrefill, p.cell, own ? nullptr : &p.rig);
      if (p.cell.decode)
        record.decode =
            SumPhase(engine, traces.decode, ProgramKind::kDecode, p.cell, own ? nullptr : &p.rig);
      Write(record);
    }
  }

  std::vector<RequestSample> RunWorkload(Engine& engine, const WorkloadSpec& spec, uint64_t seed) {
    if (spec.client == "in_process") return RunInProcess(engine, spec, seed);
    if (!options_.start_server)
      Fail(ErrorCode::kUnsupported,
           "run: client: http needs a server, which this program does not offer");
    std::unique_ptr<RunningServer> server = options_.start_server(engine);
    return RunOverHttp(server->port(), engine.model().config().vocab, spec, seed);
  }

  Record Header(const PlannedCell& p, uint32_t repetition) const {
    Record r;
    r.scenario = scenario_.name;
    r.question = scenario_.question;
    r.cell = p.cell.axes;
    r.repetition = repetition;
    r.clock = ClockOf(p.cell);
    r.fidelity = scenario_.predicted ? Fidelity::kPredicted : FidelityOf(p.rig, r.clock);
    r.op_times = scenario_.predicted ? OpTimes::kModelled : scenario_.op_times;
    r.model.name = p.cell.model;
    // Where a file lies is the machine's own business; its name and hash say which it was.
    const std::string& source = p.shape->source();
    r.model.source = source.starts_with("synthetic:")
                         ? source
                         : std::filesystem::path(source).filename().string();
    r.model.parameters = ParameterCount(*p.shape);
    r.model.weight_bytes = p.shape->weight_bytes();
    r.model.config = p.shape->config();
    r.model.weight_type =
        p.shape->layers().empty() ? "" : ToString(p.shape->layers().front().wq.type);
    r.model.hash = p.shape->weights_hash();
    r.rig = p.rig.name;
    r.rig_fingerprint = p.rig.Fingerprint();
    r.shares = p.rig.shares;
    r.link = p.rig.link.name;
    r.n_devices = p.rig.size();
    r.plugin_requested = p.cell.plugin.name;
    r.plugin = p.run.plan.plugin.empty() ? p.cell.plugin.name : p.run.plan.plugin;
    r.plugin_version = p.run.plugin.version;
    r.plugin_sha256 = p.run.plugin.sha256;
    r.knobs = p.run.plan.knobs;
    r.auto_use = p.run.use;
    r.plan_hash = p.run.plan_hash;
    r.path_requested = ToString(p.cell.path);
    if (p.refused.empty() && p.rig.size() > 1) {
      r.paths_taken.push_back(fmt::format("d0-d1 {}", ToString(p.rig.ResolvePath(p.cell.path))));
    }
    r.wire = ToString(p.cell.wire);
    r.activations = ToString(p.cell.activations);
    r.gpu = p.cell.gpu;
    r.seed = scenario_.seed;
    r.predicted = PredictedOf(p);
    r.memory = p.run.verified.memory;
    r.machine = MachineFacts();
    if (!p.rig.gpus.empty()) r.machine["gpus"] = GpuFacts(p.rig.gpus);
    r.tandem_version = options_.tandem_version;
    r.when = UtcNow();
    return r;
  }

  static void FillFromEngine(Record& record, Engine& engine) {
    record.fidelity = engine.info().fidelity;
    // On this machine the paths are those that bytes really took.
    if (engine.options().rig.is_this_machine) record.paths_taken = engine.info().transports;
    record.ops = engine.info().ops_name;
    record.memory_check = engine.CheckMemory();
    record.launch = ToString(engine.info().launch);
    record.collectives = engine.info().collectives();
    record.nccl_windows = engine.info().nccl_windows;
  }

  Engine& EngineFor(const PlannedCell& p) {
    const std::string key =
        EngineKey(p, ClockOf(p.cell) == ClockKind::kVirtual && !p.cell.workload);
    if (Engine* there = arms_.Find(key)) return *there;
    EngineOptions options;
    options.model = arms_.WithData(p.cell.model);
    options.rig = p.rig;
    options.plugin = p.cell.plugin.name;
    options.knobs = p.cell.plugin.knobs;
    options.planner = options_.planner;
    options.limits = p.cell.limits;
    options.wire = p.cell.wire;
    options.path = p.cell.path;
    options.tensor_split = p.cell.tensor_split;
    options.ops.activations = p.cell.activations;
    options.gpu = p.cell.gpu;
    options.threads = scenario_.threads;
    options.clock = ClockOf(p.cell);
    options.op_times = scenario_.op_times;
    options.max_queue = 100000;
    options.log = options_.log;
    options.on_device_lost = options_.on_device_lost;
    Engine& engine = arms_.Add(key, std::move(options), p.run.verified.memory);
    for (uint32_t w = 0; w < scenario_.warmup && !p.cell.workload; ++w)
      RunPhases(engine, p.cell, scenario_.seed + w, options_.interrupted);
    return engine;
  }

  const RunnerOptions& options_;
  const Scenario& scenario_;
  std::map<std::string, Rig> machine_rigs_;  // by the names of their devices
  Catalogue catalogue_;
  Arms arms_;
  std::vector<PlannedCell> cells_;
  RecordWriter* writer_ = nullptr;
  std::set<std::string> there_;
  uint32_t first_repetition_ = 0;
  size_t done_ = 0;
  RunSummary summary_;
};

}  // namespace

Runner::Runner(RunnerOptions options) : options_(std::move(options)) {}

RunSummary Runner::Run(const Scenario& scenario) { return Sweep(options_, scenario).Run(); }

std::vector<DryRunRow> Runner::DryRun(const Scenario& scenario) {
  return Sweep(options_, scenario).DryRun();
}

}  // namespace tandem
