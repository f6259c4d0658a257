// A result as tandem keeps it: one JSON line a repetition of a cell, under results/<machine>/
// <scenario>.jsonl. Raw records are only ever added to; reports are made from them. Every metric is
// defined in results/METRICS.md.
//
// Times are integer nanoseconds, amounts bytes, rates per second; names carry their unit.
//
//   {"schema_version":1, "scenario":"link_crossover", "question":"...", "cell":{...},
//   "repetition":0, "fidelity":
//    "emulated", "clock":"virtual", "op_times":"measured", "model":{...}, "rig":{...},
//    "link":{...}, "plugin":{...}, "plan_hash":"...", "path":{...}, "wire":"f32", "workload":{...},
//    "predicted":{...}, "prefill":{...}, "decode":{...}, "serve":{...}, "samples":{...},
//    "memory":[...], "machine":{...}, "tandem":{...}, "when":"2026-01-31T12:00:00Z"}
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/plan/memory.h"
#include "engine/plan/schedule.h"
#include "engine/run/engine.h"

namespace tandem {

inline constexpr int kRecordSchemaVersion = 1;

// Traffic summed per (phase, op kind, path) over the measured steps.
struct TrafficSum {
  std::string op;    // "all_reduce", "transfer", "fetch", ...
  std::string path;  // "local", "host_staged", ...
  Bytes bytes;
  uint64_t count = 0;  // hops
};

// What one phase (prefill or decode) of a cell gave in one repetition.
struct PhaseResult {
  uint32_t tokens = 0;  // tokens processed (prefill) or generated (decode)
  uint32_t sequences = 1;
  uint32_t context = 0;  // tokens in the cache before the phase
  uint32_t steps = 0;
  Nanos time;               // sum of step lengths
  double tokens_per_s = 0;  // tokens / time, all sequences together
  double link_share = 0;    // exposed_comm / time of the device where it is largest
  Bytes link_bytes;         // between devices, all hops
  Nanos link_busy;
  std::vector<DeviceAttribution> attribution;  // sums over steps; parts sum to `time`
  std::vector<TrafficSum> traffic;
  std::vector<Nanos> step_times;  // every sample
  uint32_t clipped_ops = 0;
};

struct LatencySummary {  // over requests; linear interpolation between order statistics
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
  uint32_t n = 0;  // percentiles with n*(1-p) < 1 are left out of the JSON
};

// A closed- or open-loop workload through the engine or over HTTP.
struct ServeResult {
  std::string loop;           // "closed", "open"
  std::string client;         // "in_process", "http"
  double rate_requested = 0;  // requests/s (open loop)
  double rate_achieved = 0;
  uint32_t requests = 0, completed = 0, failed = 0;
  Nanos duration;
  double output_tokens_per_s = 0;
  LatencySummary ttft_ms, tpot_ms, itl_ms, e2e_ms, queue_ms;  // from the scheduled time
};

struct PredictedResult {  // made before the run
  std::optional<double> prefill_tokens_per_s, decode_tokens_per_s;
  std::optional<double> prefill_link_share, decode_link_share;
};

struct ModelRecord {
  std::string name;  // as the scenario names it
  std::string source;
  uint64_t parameters = 0;
  Bytes weight_bytes;
  ModelConfig config;
  std::string weight_type;
  std::string hash;
};

struct Record {
  std::string scenario;
  std::string question;                                   // the scenario's own
  std::vector<std::pair<std::string, std::string>> cell;  // axis -> value, in the scenario's order
  uint32_t repetition = 0;
  Fidelity fidelity = Fidelity::kMeasured;
  ClockKind clock = ClockKind::kWall;
  OpTimes op_times = OpTimes::kMeasured;
  ModelRecord model;
  std::string rig;  // name
  std::string rig_fingerprint;
  std::vector<GpuShare> shares;  // by device, where one GPU stands for several
  std::string link;              // profile name
  uint32_t n_devices = 1;
  std::string plugin_requested, plugin, plugin_version, plugin_sha256;
  std::vector<Knob> knobs;
  std::optional<AutoUse> auto_use;  // what `auto` looked for, when it was asked
  std::string plan_hash;
  std::string path_requested;
  std::vector<std::string> paths_taken;  // "d0-d1 local"
  std::string wire, activations, ops;
  GpuSwitches gpu;               // of these, JSON keeps those that are told (gpu_switches.h)
  std::string launch = "eager";  // how decode steps are started: "eager", "graph"
  // Whether small all-reduces take the residual and norm along: "fused", "apart".
  std::string collectives = "apart";
  std::string nccl_windows;  // on the path nccl: "granted", "refused (why)", "off"
  uint64_t seed = 0;
  PredictedResult predicted;
  std::optional<PhaseResult> prefill, decode;
  std::optional<ServeResult> serve;
  MemoryTable memory;
  std::vector<MemoryCheck> memory_check;  // after the run, by GPU; empty on the CPU
  std::string refused;                    // why the cell cannot run; then no results
  nlohmann::json machine;  // processor, cores, memory, kernel, and GPUs in use; no host name
  std::string tandem_version;
  std::string when;  // UTC, ISO 8601

  // Identifies a row for --resume: scenario, cell and repetition.
  std::string Key() const;
};

nlohmann::json ToJson(const Record& record);
// Throws Error(kInvalidArgument) naming the field; records of a newer schema are refused.
Record RecordFromJson(const nlohmann::json& json);

// Reads every record of a results file; a torn last line (a killed run) is reported in `torn` and
// skipped. Throws Error(kIo | kNotFound).
std::vector<Record> ReadRecords(const std::string& path, bool* torn);

// Appends records one whole line at a time, synced; holds a lock on the file, so a second run on
// the same results is Error(kIo) naming the file. Cuts off a torn last line first.
class RecordWriter {
 public:
  explicit RecordWriter(const std::string& path);
  ~RecordWriter();
  void Append(const Record& record);

 private:
  int fd_ = -1;
  std::string path_;
};

// What tables say of a refusal: "does not fit", or "refused [rule]" where the verifier named
// another rule than memory; "refused" of what an engine refuses, "not priced" of what the pricer
// does.
std::string RefusalLabel(const std::string& refused);

// The folder name of this machine under results/, lower case: "<cpu model>-<cores>c", and
// "-2x-<gpu model>" where it has GPUs.
std::string MachineFolderName();
nlohmann::json MachineFacts();
// Of GPUs by CUDA's numbers: what they are, the driver and the libraries.
nlohmann::json GpuFacts(std::span<const int> gpus);

}  // namespace tandem
