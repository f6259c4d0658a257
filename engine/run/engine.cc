// Making an engine, and the calls that come from other threads. Steps are in engine_step.cc.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/base/error.h"
#include "engine/run/engine_impl.h"
#include "engine/run/gpu_rig.h"

namespace tandem {
namespace {

void CheckOptions(const EngineOptions& options) {
  const auto refuse = [](const std::string& message) {
    Fail(ErrorCode::kInvalidArgument, "engine: " + message);
  };
  if (options.model == nullptr) refuse("no model was given");
  if (!options.model->has_data()) {
    refuse(
        fmt::format("the model {} has shapes but no weights, and can only be planned and priced; "
                    "load a GGUF file or a synthetic model",
                    options.model->source()));
  }
  if (options.rig.devices.empty()) refuse("the rig has no devices");
  CheckProducts(options.rig, options.gpu.prefill_products);
  if (options.limits.max_sequences == 0) refuse("0 slots (want at least 1: -np)");
  if (options.limits.max_step_tokens == 0) refuse("a prefill chunk of 0 tokens (want at least 1)");
  if (options.limits.context < options.limits.max_sequences) {
    refuse(fmt::format("a context of {} tokens over {} slots (want at least one token a slot: -c)",
                       options.limits.context, options.limits.max_sequences));
  }
}

}  // namespace

const char* ToString(Fidelity fidelity) {
  switch (fidelity) {
    case Fidelity::kMeasured:
      return "measured";
    case Fidelity::kEmulated:
      return "emulated";
    case Fidelity::kPredicted:
      return "predicted";
  }
  return "?";
}

Fidelity FidelityOf(const Rig& rig, ClockKind clock) {
  const bool measured = rig.is_this_machine && !rig.SharesAGpu() && clock == ClockKind::kWall;
  return measured ? Fidelity::kMeasured : Fidelity::kEmulated;
}

bool DevicesTakeTurns(const Rig& rig, ClockKind clock) {
  return rig.is_this_machine && rig.gpus.empty() && clock == ClockKind::kWall;
}

const char* ToString(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "?";
}

const char* ToString(LaunchMode mode) { return mode == LaunchMode::kGraph ? "graph" : "eager"; }

std::unique_ptr<Engine> Engine::Create(EngineOptions options) {
  return std::make_unique<EngineImpl>(std::move(options));
}

EngineImpl::EngineImpl(EngineOptions options) : options_(std::move(options)) {
  CheckOptions(options_);
  const Nanos start = wall_.Now();
  MakePlan();
  MakeBackend();
  const Plan& plan = info_.planned.plan;
  executor_ =
      std::make_unique<Executor>(ExecutorSetup{.model = options_.model.get(),
                                               .plan = &plan,
                                               .verified = &info_.planned.verified,
                                               .rig = &options_.rig,
                                               .limits = options_.limits,
                                               .backend = backend_.get(),
                                               .gpu = options_.gpu,
                                               .wrap_transport = options_.hooks.wrap_transport});
  SchedulerLimits limits{.plan = options_.limits,
                         .n_lanes = plan.n_lanes,
                         .pages_per_lane = executor_->pages_per_lane(),
                         .max_scored_rows = {}};
  for (uint32_t lane = 0; lane < plan.n_lanes; ++lane) {
    limits.max_scored_rows.push_back(executor_->max_scored_rows(lane));
  }
  scheduler_ = std::make_unique<Scheduler>(limits);
  slot_context_ = scheduler_->slot_context();
  sampler_ = std::make_unique<Sampler>(options_.model->config().vocab);
  lanes_.resize(plan.n_lanes);
  const bool int8 = backend_->ops(0).activations() == ActivationType::kInt8 &&
                    Traits(options_.model->layers()[0].w_gate.type).quantized;
  timer_ = std::make_unique<RigTimer>(
      RigTimerSetup{.graph = &options_.model->blocks(),
                    .plan = &plan,
                    .verified = &info_.planned.verified,
                    .rig = &options_.rig,
                    .clock = options_.clock,
                    .op_times = options_.op_times,
                    .arithmetic = int8 ? ArithmeticKind::kInt8 : ArithmeticKind::kF32,
                    .pool = pool_.get(),
                    .fuse_collectives = options_.gpu.fuse_collectives});
  MakeInfo();
  info_.load_time = wall_.Now() - start;
  options_.log->Write(LogLevel::kInfo,
                      fmt::format("engine: planned, and packed {:.1f} MB of weights, in {:.0f} ms",
                                  static_cast<double>(info_.packed_bytes.value) * 1e-6,
                                  info_.load_time.Seconds() * 1e3));
  if (const Bytes pageable = executor_->pageable_bytes(); pageable.value > 0) {
    options_.log->Write(
        LogLevel::kWarning,
        fmt::format("engine: {:.1f} MB of the host's weights are not page-locked (limit {:.1f} MB) "
                    "and cross through a ring, which costs a pass over the host's memory more; "
                    "raise --pinned-memory where the machine has it",
                    static_cast<double>(pageable.value) * 1e-6,
                    static_cast<double>(backend_->host().ledger().capacity().value) * 1e-6));
  }
  LogMemory("after loading");
  UpdateGauges();
}

EngineImpl::~EngineImpl() { LogMemory("at the end"); }

std::vector<MemoryCheck> EngineImpl::CheckMemory() { return backend_->CheckMemory(); }

// A device that is lost cannot be asked, and whoever lost it has said so.
void EngineImpl::LogMemory(const char* when) noexcept {
  try {
    if (backend_ == nullptr || !lost_.empty()) return;
    for (const MemoryCheck& check : backend_->CheckMemory()) {
      options_.log->Write(check.agrees() ? LogLevel::kInfo : LogLevel::kWarning,
                          fmt::format("engine: memory {}: {}", when, check.Text()));
    }
  } catch (const std::exception&) {
  }
}

void EngineImpl::MakePlan() {
  const BlockGraph& graph = options_.model->blocks();
  if (options_.plan) {
    PlannedRun& planned = info_.planned;
    planned.plan = *options_.plan;
    planned.plugin.name = planned.plan.plugin;
    planned.plugin.version = planned.plan.plugin_version;
    planned.requested = planned.plan.plugin;
    planned.plan_hash = PlanHash(planned.plan);
    planned.verified = VerifyOrFail(planned.plan, graph, options_.rig, options_.limits);
    return;
  }
  const PlanProblem problem{.graph = &graph,
                            .rig = &options_.rig,
                            .limits = options_.limits,
                            .wire = options_.wire,
                            .path = options_.path,
                            .tensor_split = options_.tensor_split,
                            .devices_take_turns =
                                DevicesTakeTurns(options_.rig, options_.clock)};
  info_.planned = Planner(options_.planner).MakePlan(options_.plugin, problem, options_.knobs);
}

void EngineImpl::MakeBackend() {
  pool_ = std::make_shared<ThreadPool>(ThreadPoolOptions{.threads = options_.threads});
  const BackendSetup setup{.rig = &options_.rig,
                           .n_devices = info_.planned.plan.n_devices,
                           .ops = options_.ops,
                           .gpu = options_.gpu,
                           .step_rows = options_.limits.max_step_tokens,
                           .pool = pool_,
                           .pinned_limit = options_.pinned_limit,
                           .wrap_ops = options_.hooks.wrap_ops};
  if (options_.hooks.make_backend) {
    backend_ = options_.hooks.make_backend(setup);
  } else {
    backend_ = options_.rig.gpus.empty() ? MakeCpuBackend(setup) : MakeCudaBackend(setup);
  }
}

void EngineImpl::MakeInfo() {
  info_.fidelity = FidelityOf(options_.rig, options_.clock);
  info_.ops_name = backend_->ops(0).name();
  info_.activations = backend_->ops(0).activations();
  info_.threads = pool_->threads();
  info_.transports = executor_->transport_names();
  info_.launch = executor_->decode_launch();
  info_.fused_collectives = executor_->fuses_collectives();
  info_.nccl_windows = executor_->windows();
  info_.op_time_factor = timer_->op_time_factor();
  info_.packed_bytes = executor_->packed_bytes();
}

const Clock& EngineImpl::clock() const {
  if (IsVirtual()) return virtual_;
  return wall_;
}

EngineCounters EngineImpl::counters() const {
  std::lock_guard lock(mutex_);
  EngineCounters counters = counters_;
  counters.waiting = queued_;
  return counters;
}

RequestId EngineImpl::Submit(Request request, std::shared_ptr<RequestListener> listener) {
  const uint32_t vocab = options_.model->config().vocab;
  const auto refuse = [](const std::string& message) {
    Fail(ErrorCode::kInvalidArgument, "request: " + message);
  };
  if (request.prompt.empty()) refuse("the prompt has no tokens (want at least one)");
  for (int32_t id : request.prompt) {
    if (id >= 0 && static_cast<uint32_t>(id) < vocab) continue;
    refuse(fmt::format("token id {} is outside the vocabulary (want 0 to {})", id, vocab - 1));
  }
  const size_t wanted = request.prompt.size() + (request.max_tokens > 0 ? 1 : 0);
  if (wanted > slot_context_) {
    refuse(
        fmt::format("a prompt of {} tokens does not fit a slot's context of {} with room to "
                    "answer; shorten it, or serve with a larger -c or a smaller -np",
                    request.prompt.size(), slot_context_));
  }
  ValidateSampling(request.sampling, vocab);

  auto sequence = std::make_unique<Sequence>();
  sequence->n_prompt = static_cast<uint32_t>(request.prompt.size());
  sequence->max_tokens = std::min(request.max_tokens, slot_context_ - sequence->n_prompt);
  sequence->context = request.prompt;
  sequence->context.reserve(sequence->n_prompt + sequence->max_tokens);
  sequence->stats.prompt_tokens = sequence->n_prompt;
  sequence->stats.token_times.reserve(sequence->max_tokens);
  sequence->stats.fidelity = info_.fidelity;
  sequence->request = std::move(request);
  sequence->listener = std::move(listener);

  std::lock_guard lock(mutex_);
  // A request that a free slot takes at the next step does not count as waiting.
  const uint32_t running = counters_.running;
  const uint32_t free =
      options_.limits.max_sequences - std::min(running, options_.limits.max_sequences);
  if (queued_ >= options_.max_queue + free) {
    Fail(ErrorCode::kOverloaded,
         fmt::format("engine: {} requests are waiting already (at most {}); try again later",
                     queued_, options_.max_queue));
  }
  const Nanos now = clock().Now();
  sequence->id = next_id_++;
  sequence->stats.submitted = now;
  sequence->stats.scheduled = sequence->request.scheduled.value_or(now);
  const RequestId id = sequence->id;
  inbox_.push_back(std::move(sequence));
  ++queued_;
  return id;
}

void EngineImpl::Cancel(RequestId id) {
  std::lock_guard lock(mutex_);
  cancels_.push_back(id);
}

void EngineImpl::CancelAll() {
  std::lock_guard lock(mutex_);
  cancel_all_ = true;
}

void EngineImpl::AdvanceTo(Nanos when) {
  if (IsVirtual()) virtual_.AdvanceTo(when);
}

void EngineImpl::AddObserver(StepObserver* observer) { observers_.push_back(observer); }

void EngineImpl::RemoveObserver(StepObserver* observer) { std::erase(observers_, observer); }

}  // namespace tandem
