// The engine: one model, one plan, its devices, and the requests it serves by continuous batching.
// Front ends (HTTP, the command line, the lab) know this interface alone.
//
// Threads: Submit and Cancel may be called from any thread; Step, NextStepTime and HasWork from one
// thread, the engine's (EngineThread provides one, the lab drives its own). Listeners and observers
// are called on that thread, and must not block.
//
// Time: every time point is on clock(). Under a virtual clock a step takes the length of its
// timeline in rig time; under the wall clock it takes what it takes, and the timeline, when the rig
// is not this machine, is carried beside it as emulated figures.
//
//   std::unique_ptr<Engine> engine = Engine::Create(options);
//   engine->Submit(request, listener);
//   while (engine->HasWork()) engine->Step();
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/device/memory_check.h"
#include "engine/link/traffic_ledger.h"
#include "engine/link/transport.h"
#include "engine/model/model.h"
#include "engine/plan/schedule.h"
#include "engine/plugin/planner.h"
#include "engine/rig/rig.h"
#include "engine/run/gpu_switches.h"
#include "kernels/ops.h"

namespace tandem {

// How close to the real thing a number is (results/METRICS.md). Shown everywhere with the number.
enum class Fidelity : uint8_t { kMeasured, kEmulated, kPredicted };
const char* ToString(Fidelity fidelity);  // "measured", "emulated", "predicted"

enum class ClockKind : uint8_t { kWall, kVirtual };
// Of what runs on a rig: measured only on devices that are here, each a card of its own, by the
// wall clock. One GPU that stands for several devices is emulation.
Fidelity FidelityOf(const Rig& rig, ClockKind clock);
// Whether the devices are this machine's processor under several names and time is told by the wall
// clock: they share its cores and its memory bus, and one runs at a time.
bool DevicesTakeTurns(const Rig& rig, ClockKind clock);
// Where an op's time on a virtual timeline comes from: measured here and scaled to the rig by the
// ratio of rooflines, or modelled by roofline alone (identical from run to run).
enum class OpTimes : uint8_t { kMeasured, kModelled };

// How a step was started: op by op, or by replaying what was recorded.
enum class LaunchMode : uint8_t { kEager, kGraph };
const char* ToString(LaunchMode mode);  // "eager", "graph"

class Backend;
struct BackendSetup;

// Hooks for tests that inject faults; empty in production.
struct EngineHooks {
  // What a path's transport is wrapped in.
  std::function<std::unique_ptr<Transport>(std::unique_ptr<Transport>)> wrap_transport;
  // What the kernels are wrapped in.
  std::function<std::unique_ptr<Ops>(std::unique_ptr<Ops>)> wrap_ops;
  // What runs the plan in place of the back end that the rig names.
  std::function<std::unique_ptr<Backend>(const BackendSetup&)> make_backend;
};

struct EngineOptions {
  std::shared_ptr<const Model> model;
  Rig rig;
  // A plan to run as it is, instead of asking `plugin` for one; it is verified all the same.
  std::optional<Plan> plan;
  std::string plugin = "auto";
  std::vector<Knob> knobs;
  PlannerOptions planner;
  PlanLimits limits;
  WireType wire = WireType::kF32;
  PathKind path = PathKind::kAuto;
  std::vector<double> tensor_split;
  CpuOpsOptions ops;  // tier "ref" runs the oracle instead of the CPU kernels
  GpuSwitches gpu;
  int threads = 0;  // of the CPU team; 0: one a core
  // At most so much of the host's memory is page-locked for GPUs; zero: three quarters of it.
  Bytes pinned_limit;
  ClockKind clock = ClockKind::kWall;
  OpTimes op_times = OpTimes::kMeasured;
  uint32_t max_queue = 512;  // requests waiting for a slot; one more is Error(kOverloaded)
  LogSink* log = &NullLog();
  // Told once, on the engine's thread, when a device has failed for good: every request from then
  // on fails, and a process that serves should end.
  std::function<void(const std::string& why)> on_device_lost;
  EngineHooks hooks;
};

struct SamplingParams {
  double temperature = 0.0;  // 0: greedy, ties to the lowest id
  uint32_t top_k = 0;        // 0: off
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;  // over the whole context
  double presence_penalty = 0.0;    // over generated tokens
  double frequency_penalty = 0.0;
  std::vector<std::pair<int32_t, float>> logit_bias;
  uint64_t seed = 0;  // draws depend on seed and token index alone, not on the batch
};

struct Request {
  std::vector<int32_t> prompt;  // at least one token
  uint32_t max_tokens = 16;     // generated at most; clamped to the context; 0: prefill alone
  uint32_t min_tokens = 0;      // end-of-generation tokens do not end it before
  bool ignore_eos = false;
  SamplingParams sampling;
  int logprobs = -1;               // >= 0: give the chosen token's logprob and this many best
  bool prompt_logits = false;      // give all logits of every prompt position (tests, scoring)
  std::optional<Nanos> scheduled;  // when it was due; default: when submitted
};

struct TokenEvent {
  int32_t id = 0;
  uint32_t index = 0;  // of the generated tokens, from 0
  Nanos time;
  float logprob = 0;  // natural log, of the unpenalised distribution at temperature 1
  std::vector<std::pair<int32_t, float>> top;  // best first, when asked for
};

enum class FinishReason : uint8_t { kStop, kLength, kCancelled, kError };
const char* ToString(FinishReason reason);  // "stop", "length", "cancelled", "error"

// What one request cost, split by phase. Link figures are in rig time and carry `fidelity`.
struct PhaseStats {
  uint32_t steps = 0;  // steps this request took part in
  Nanos step_time;     // their lengths on the rig's timeline
  Nanos link_busy;     // of that, time something was on a link
  Nanos exposed_comm;  // of that, time the slowest device waited for a link
  Bytes link_bytes;    // device-to-device bytes of those steps, this request's share by rows
};

struct RequestStats {
  Nanos scheduled, submitted, admitted, prefill_start, first_token, done;
  std::vector<Nanos> token_times;
  uint32_t prompt_tokens = 0;
  uint32_t generated_tokens = 0;
  uint32_t lane = 0;
  PhaseStats prefill, decode;
  Fidelity fidelity = Fidelity::kMeasured;
};

class RequestListener {
 public:
  virtual ~RequestListener() = default;
  virtual void OnToken(const TokenEvent& event) = 0;
  // All logits of prompt positions [first, first + logits.size() / vocab), when asked for.
  virtual void OnPromptLogits(uint32_t first, const std::vector<float>& logits) {
    (void)first, (void)logits;
  }
  // Called exactly once, last. `error` is empty unless reason is kError.
  virtual void OnDone(FinishReason reason, const std::string& error, const RequestStats& stats) = 0;
};

using RequestId = uint64_t;

// One step, as records and metrics want it.
struct StepReport {
  uint64_t index = 0;
  ProgramKind phase = ProgramKind::kPrefill;
  uint32_t lane = 0;
  StepShape shape;
  uint32_t sequences = 0;
  LaunchMode launch = LaunchMode::kEager;
  Nanos start, end;                 // on clock()
  Nanos wall;                       // what it took here
  std::vector<Nanos> op_times_raw;  // measured here, by op (compute ops; 0 for movements)
  std::vector<Nanos> op_times;      // the same in rig time; equal to raw on this machine's rig
  Timeline timeline;  // op_times laid on the rig; wall-clock attribution when measured
  std::vector<TrafficRow> traffic;  // counted by the ledger as bytes moved
  std::span<const HopRow> hops;     // the ledger's rows behind `traffic`, times laid as `timeline`;
                                    // valid during OnStep
  uint32_t clipped_ops = 0;         // op times beyond the rig's own roof that were clipped to it
};

class StepObserver {
 public:
  virtual ~StepObserver() = default;
  virtual void OnStep(const StepReport& report) = 0;
};

// Gauges and counters for /metrics and the live page.
struct EngineCounters {
  uint32_t running = 0, waiting = 0;
  uint64_t prompt_tokens = 0, generated_tokens = 0;
  uint64_t steps_prefill = 0, steps_decode = 0;
  uint64_t finished_stop = 0, finished_length = 0, finished_cancelled = 0, finished_error = 0;
  uint32_t kv_pages_used = 0, kv_pages_total = 0;
};

struct EngineInfo {
  PlannedRun planned;
  Fidelity fidelity = Fidelity::kMeasured;
  std::string ops_name;  // "cpu/avx2"
  ActivationType activations = ActivationType::kInt8;
  int threads = 1;
  // The path each pair of ends in use really takes, and what stands in for it where it is not what
  // moves the bytes here: "d0-d1 local", "d0-d1 p2p (by local)".
  std::vector<std::string> transports;
  LaunchMode launch = LaunchMode::kEager;  // of decode steps, once they repeat
  bool fused_collectives = false;          // of decode steps of few rows: see GpuSwitches
  // On the path nccl: "granted", "refused (why)" or "off"; else empty.
  std::string nccl_windows;
  const char* collectives() const { return fused_collectives ? "fused" : "apart"; }
  double op_time_factor = 1.0;  // median roofline(rig)/roofline(here), for the record
  Nanos load_time;
  Bytes packed_bytes;
};

class Engine {
 public:
  // Plans, verifies, allocates and packs. Throws Error(kPlan | kPlugin | kDevice | ...).
  static std::unique_ptr<Engine> Create(EngineOptions options);
  virtual ~Engine() = default;

  virtual const EngineOptions& options() const = 0;
  virtual const EngineInfo& info() const = 0;
  virtual const Model& model() const = 0;
  virtual const Clock& clock() const = 0;
  virtual EngineCounters counters() const = 0;  // any thread
  // The ledgers' sums beside the driver's count, by GPU; on the engine's thread, between steps.
  virtual std::vector<MemoryCheck> CheckMemory() { return {}; }

  // Throws Error(kInvalidArgument) for a prompt that is empty, has ids out of the vocabulary or
  // does not fit a slot's context, Error(kOverloaded) when the queue is full.
  virtual RequestId Submit(Request request, std::shared_ptr<RequestListener> listener) = 0;
  // The request ends with kCancelled at the next step; unknown ids are ignored.
  virtual void Cancel(RequestId id) = 0;
  // The same for every request submitted so far.
  virtual void CancelAll() = 0;

  // Whether anything is running or waiting.
  virtual bool HasWork() const = 0;
  // When Step would act next: the earliest lane with work. Under the wall clock: now.
  virtual Nanos NextStepTime() const = 0;
  // Under a virtual clock: moves time to `when` (the next arrival), which is not after NextStepTime
  // while there is work.
  virtual void AdvanceTo(Nanos when) = 0;
  // Admits what fits, runs one program of one lane, samples, tells listeners. False: nothing to do.
  // Under a virtual clock with several lanes a call either starts a lane's step or ends the one
  // that ends next, so that requests which arrive in between are seen in time.
  virtual bool Step() = 0;

  // Observers outlive the engine or are removed; call these on the engine's thread.
  virtual void AddObserver(StepObserver* observer) = 0;
  virtual void RemoveObserver(StepObserver* observer) = 0;
};

// Runs an engine's steps on a thread of its own until destroyed; sleeps while there is no work.
class EngineThread {
 public:
  explicit EngineThread(Engine& engine);
  ~EngineThread();  // stops after the step in progress; open requests end with kCancelled
  RequestId Submit(Request request, std::shared_ptr<RequestListener> listener);
  void Cancel(RequestId id);
  // Blocks until nothing is running or waiting, or the timeout passes; true when idle.
  bool Drain(Nanos timeout);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem
