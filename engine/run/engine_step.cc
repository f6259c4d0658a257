// One step of the engine: requests in, a lane chosen, its program run, tokens out.
#include <algorithm>
#include <exception>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/model/tokenizer.h"
#include "engine/run/engine_impl.h"

namespace tandem {

void EngineImpl::DrainInbox() {
  std::vector<std::unique_ptr<Sequence>> arrived;
  {
    std::lock_guard lock(mutex_);
    arrived.swap(inbox_);
  }
  for (auto& sequence : arrived) scheduler_->Enqueue(std::move(sequence));
}

void EngineImpl::ApplyCancels() {
  std::vector<RequestId> ids;
  bool all = false;
  {
    std::lock_guard lock(mutex_);
    ids.swap(cancels_);
    all = std::exchange(cancel_all_, false);
  }
  if (all) ids = scheduler_->Ids();
  for (RequestId id : ids) {
    if (std::unique_ptr<Sequence> waiting = scheduler_->TakeWaiting(id)) {
      {
        std::lock_guard lock(mutex_);
        --queued_;
      }
      Finish(std::move(waiting), FinishReason::kCancelled, clock().Now());
      continue;
    }
    Sequence* sequence = scheduler_->Find(id);
    if (sequence == nullptr) continue;
    sequence->cancelled = true;
    // In the middle of a step on the virtual clock it ends with the step.
    if (lanes_[sequence->lane].in_flight) continue;
    Finish(scheduler_->Release(sequence), FinishReason::kCancelled, clock().Now());
  }
}

bool EngineImpl::HasWork() const {
  {
    std::lock_guard lock(mutex_);
    if (!inbox_.empty() || !cancels_.empty() || cancel_all_) return true;
  }
  return scheduler_->running() > 0 || scheduler_->waiting() > 0;
}

// The earliest of steps that end and steps that can start; ends first, then the lowest lane.
std::optional<EngineImpl::Event> EngineImpl::NextEvent() const {
  std::optional<Event> next;
  for (uint32_t i = 0; i < lanes_.size(); ++i) {
    const Lane& lane = lanes_[i];
    Event event{.when = lane.ready, .lane = i, .ends = lane.in_flight};
    if (!lane.in_flight) {
      if (!scheduler_->HasActive(i)) continue;
      if (IsVirtual()) event.when = std::max(event.when, virtual_.Now());
    }
    const bool earlier =
        !next || event.when < next->when || (event.when == next->when && event.ends && !next->ends);
    if (earlier) next = event;
  }
  return next;
}

Nanos EngineImpl::NextStepTime() const {
  if (!IsVirtual()) return wall_.Now();
  {
    // Requests that have just come may be admitted at once.
    std::lock_guard lock(mutex_);
    if (!inbox_.empty() || !cancels_.empty() || cancel_all_) return virtual_.Now();
  }
  const std::optional<Event> next = NextEvent();
  return next ? next->when : virtual_.Now();
}

bool EngineImpl::Step() {
  DrainInbox();
  const uint32_t open = scheduler_->running() + scheduler_->waiting();
  ApplyCancels();
  bool acted = scheduler_->running() + scheduler_->waiting() != open;
  scheduler_->Admit(clock().Now());
  UpdateGauges();
  const std::optional<Event> next = NextEvent();
  if (!next) return acted;
  if (IsVirtual()) virtual_.AdvanceTo(next->when);
  if (next->ends) {
    EndStep(next->lane);
    return true;
  }
  StartStep(next->lane);
  // With one lane, or on the wall clock, nothing can happen before the step ends.
  if (!IsVirtual() || lanes_.size() == 1) EndStep(next->lane);
  return true;
}

void EngineImpl::StartStep(uint32_t index) {
  Lane& lane = lanes_[index];
  const std::optional<ProgramKind> phase = scheduler_->NextPhase(index);
  Check(phase.has_value(), "engine: a lane with sequences has a next step");
  scheduler_->BuildBatch(index, *phase, batch_, lane.members);
  lane.error.clear();
  lane.in_flight = true;
  StepReport& report = lane.report;
  report.index = steps_++;
  report.phase = *phase;
  report.lane = index;
  report.sequences = static_cast<uint32_t>(lane.members.size());
  report.start = clock().Now();
  for (Sequence* sequence : lane.members) {
    sequence->choice.reset();
    sequence->error.clear();
    if (sequence->n_stored == 0) sequence->stats.prefill_start = report.start;
  }
  const Nanos wall_start = wall_.Now();
  RunBatch(lane);
  report.wall = wall_.Now() - wall_start;
  if (!lane.error.empty()) {
    report.end = clock().Now();
    lane.ready = report.end;
    return;
  }
  Account(lane);
  report.end = report.start + (IsVirtual() ? report.timeline.length : report.wall);
  lane.ready = report.end;
}

void EngineImpl::RunBatch(Lane& lane) {
  if (!lost_.empty()) {
    lane.error = lost_;
    return;
  }
  try {
    members_ = &lane.members;
    executor_->Run(batch_, *this);
  } catch (const std::exception& error) {
    // The requests of this step fail; the engine goes on.
    lane.error = error.what();
    if (!backend_->lost()) {
      options_.log->Write(LogLevel::kError, "engine: a step failed: " + lane.error);
      return;
    }
    // Told once: by whom it ends.
    lost_ = lane.error;
    if (options_.on_device_lost) options_.on_device_lost(lost_);
  }
}

// Times and traffic of the step that has just run.
void EngineImpl::Account(Lane& lane) {
  const StepTrace& trace = executor_->trace();
  StepReport& report = lane.report;
  report.shape = trace.shape;
  report.launch = trace.launch;
  timer_->Lay(trace, executor_->StepWeights(trace.program_index), report.wall, executor_->ledger(),
              report);
  executor_->ledger().SumInto(trace.shape.rows(), report.traffic);
  lane.link_bytes = executor_->ledger().BetweenDevices();
  const std::span<const HopRow> rows = std::as_const(*executor_).ledger().rows();
  lane.hops.assign(rows.begin(), rows.end());
  report.hops = lane.hops;
}

void EngineImpl::OnLogits(std::span<const SampledRow> rows, const float* logits,
                          std::span<int32_t> ids) {
  const uint32_t vocab = options_.model->config().vocab;
  for (size_t i = 0; i < rows.size(); ++i) {
    Sequence& sequence = *(*members_)[rows[i].sequence];
    const float* row = logits + i * vocab;
    ids[i] = 0;
    const bool prompt_row = sequence.InPrefill();
    if (prompt_row && sequence.request.prompt_logits) {
      sequence.prompt_logits.resize(size_t{sequence.step_rows} * vocab);
      std::copy_n(row, vocab, sequence.prompt_logits.begin() + size_t{rows[i].row} * vocab);
    }
    if (ChosenBy(rows[i]) == nullptr) continue;
    try {
      sequence.choice =
          sampler_->Choose(row, sequence.request.sampling, sequence.context, sequence.n_prompt,
                           sequence.n_generated(), sequence.request.logprobs);
      ids[i] = sequence.choice->id;
    } catch (const Error& error) {
      sequence.error = error.what();
    }
  }
}

void EngineImpl::OnTopK(std::span<const SampledRow> rows, const TopEntry* entries, uint32_t k,
                        std::span<int32_t> ids) {
  for (size_t i = 0; i < rows.size(); ++i) {
    ids[i] = 0;
    Sequence* sequence = ChosenBy(rows[i]);
    if (sequence == nullptr) continue;
    try {
      sequence->choice = sampler_->ChooseAmong(std::span(entries + i * k, k),
                                               sequence->request.sampling, sequence->n_generated());
      ids[i] = sequence->choice->id;
    } catch (const Error& error) {
      sequence->error = error.what();
    }
  }
}

Sequence* EngineImpl::ChosenBy(const SampledRow& row) {
  Sequence* sequence = (*members_)[row.sequence];
  const bool last = sequence->n_stored + row.row + 1 == sequence->context.size();
  return last && sequence->max_tokens > 0 ? sequence : nullptr;
}

void EngineImpl::EndStep(uint32_t index) {
  Lane& lane = lanes_[index];
  lane.in_flight = false;
  const Nanos when = lane.report.end;
  if (!lane.error.empty()) {
    FailMembers(lane, when);
    UpdateGauges();
    return;
  }
  {
    std::lock_guard lock(mutex_);
    const bool prefill = lane.report.phase == ProgramKind::kPrefill;
    ++(prefill ? counters_.steps_prefill : counters_.steps_decode);
    if (prefill) counters_.prompt_tokens += lane.report.shape.rows();
  }
  for (StepObserver* observer : observers_) observer->OnStep(lane.report);

  const uint64_t rows = std::max(1u, lane.report.shape.rows());
  uint64_t before = 0;
  for (Sequence* sequence : lane.members) {
    PhaseStats& stats = lane.report.phase == ProgramKind::kPrefill ? sequence->stats.prefill
                                                                   : sequence->stats.decode;
    ++stats.steps;
    stats.step_time += lane.report.timeline.length;
    stats.link_busy += lane.report.timeline.link_busy;
    stats.exposed_comm += lane.report.timeline.exposed_comm;
    // Shares by rows, cut so that they add up to the whole.
    const uint64_t after = before + sequence->step_rows;
    const uint64_t bytes = lane.link_bytes.value;
    stats.link_bytes += Bytes{bytes * after / rows - bytes * before / rows};
    before = after;
  }
  for (Sequence* sequence : lane.members) Deliver(*sequence, when, lane.report);
  lane.members.clear();
  UpdateGauges();
}

void EngineImpl::Deliver(Sequence& sequence, Nanos when, const StepReport& report) {
  const uint32_t first = sequence.n_stored;
  const bool prompt = report.phase == ProgramKind::kPrefill;
  sequence.n_stored += sequence.step_rows;
  if (prompt && sequence.request.prompt_logits) {
    sequence.listener->OnPromptLogits(first, sequence.prompt_logits);
    sequence.prompt_logits.clear();
  }
  if (!sequence.error.empty()) {
    Finish(scheduler_->Release(&sequence), FinishReason::kError, when);
    return;
  }
  if (sequence.cancelled) {
    Finish(scheduler_->Release(&sequence), FinishReason::kCancelled, when);
    return;
  }
  if (sequence.choice) AppendToken(sequence, when);
  if (const std::optional<FinishReason> reason = EndOf(sequence)) {
    Finish(scheduler_->Release(&sequence), *reason, when);
  }
}

void EngineImpl::AppendToken(Sequence& sequence, Nanos when) {
  Choice& choice = *sequence.choice;
  RequestStats& stats = sequence.stats;
  TokenEvent event{.id = choice.id,
                   .index = sequence.n_generated(),
                   .time = when,
                   .logprob = choice.logprob,
                   .top = std::move(choice.top)};
  sequence.context.push_back(choice.id);
  if (stats.generated_tokens++ == 0) stats.first_token = when;
  stats.token_times.push_back(when);
  {
    std::lock_guard lock(mutex_);
    ++counters_.generated_tokens;
  }
  sequence.listener->OnToken(event);
}

// Why the sequence ends after what it has; nothing when it goes on.
std::optional<FinishReason> EngineImpl::EndOf(const Sequence& sequence) const {
  if (sequence.InPrefill()) return std::nullopt;
  const Request& request = sequence.request;
  const Tokenizer* tokenizer = options_.model->tokenizer();
  const uint32_t generated = sequence.n_generated();
  if (generated > 0 && !request.ignore_eos && tokenizer != nullptr &&
      generated > request.min_tokens && tokenizer->IsEndOfGeneration(sequence.context.back())) {
    return FinishReason::kStop;
  }
  if (generated >= sequence.max_tokens) return FinishReason::kLength;
  return std::nullopt;
}

void EngineImpl::FailMembers(Lane& lane, Nanos when) {
  for (Sequence* sequence : lane.members) {
    sequence->error = lane.error;
    Finish(scheduler_->Release(sequence), FinishReason::kError, when);
  }
  lane.members.clear();
}

void EngineImpl::Finish(std::unique_ptr<Sequence> sequence, FinishReason reason, Nanos when) {
  sequence->stats.done = when;
  {
    std::lock_guard lock(mutex_);
    switch (reason) {
      case FinishReason::kStop:
        ++counters_.finished_stop;
        break;
      case FinishReason::kLength:
        ++counters_.finished_length;
        break;
      case FinishReason::kCancelled:
        ++counters_.finished_cancelled;
        break;
      case FinishReason::kError:
        ++counters_.finished_error;
        break;
    }
  }
  sequence->listener->OnDone(reason, sequence->error, sequence->stats);
}

void EngineImpl::UpdateGauges() {
  std::lock_guard lock(mutex_);
  counters_.running = scheduler_->running();
  queued_ = scheduler_->waiting() + static_cast<uint32_t>(inbox_.size());
  counters_.kv_pages_used = scheduler_->pages_used();
  counters_.kv_pages_total = scheduler_->pages_total();
}

}  // namespace tandem
