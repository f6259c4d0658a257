#include "engine/run/scheduler.h"

#include <algorithm>
#include <span>
#include <utility>

#include "engine/base/check.h"

namespace tandem {
namespace {

// So that few different numbers are asked for: each is a program of its own where steps are
// recorded.
constexpr uint32_t kEntriesStep = 16;

// What choosing the ids of the batch's rows takes: the most of any.
uint32_t EntriesOf(const StepBatch& batch, std::span<Sequence* const> members) {
  uint32_t most = 1;
  for (size_t i = 0; i < members.size(); ++i) {
    if (batch.sequences[i].sampled == 0) continue;
    const Request& request = members[i]->request;
    const uint32_t entries =
        request.prompt_logits ? 0 : EntriesToChoose(request.sampling, request.logprobs);
    if (entries == 0) return 0;
    most = std::max(most, entries);
  }
  return most == 1 ? 1 : (most + kEntriesStep - 1) / kEntriesStep * kEntriesStep;
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits)
    : limits_(limits),
      slot_context_(std::max(1u, limits.plan.context / std::max(1u, limits.plan.max_sequences))) {
  for (uint32_t lane = 0; lane < limits.n_lanes; ++lane) {
    lanes_.emplace_back(limits.pages_per_lane);
    lanes_.back().slots.assign(limits.plan.max_sequences, false);
  }
}

void Scheduler::Enqueue(std::unique_ptr<Sequence> sequence) {
  waiting_.push_back(std::move(sequence));
}

Scheduler::Lane* Scheduler::BestLane(uint32_t pages, uint32_t* index) {
  Lane* best = nullptr;
  for (uint32_t i = 0; i < lanes_.size(); ++i) {
    Lane& lane = lanes_[i];
    const bool slot = lane.active.size() < lane.slots.size();
    if (!slot || lane.pages.total() - lane.pages.used() < pages) continue;
    if (best != nullptr && lane.active.size() >= best->active.size()) continue;
    best = &lane;
    *index = i;
  }
  return best;
}

void Scheduler::Admit(Nanos now) {
  while (!waiting_.empty() && running_ < limits_.plan.max_sequences) {
    Sequence& first = *waiting_.front();
    const uint32_t pages = PagesFor(first.n_prompt + first.max_tokens);
    uint32_t index = 0;
    Lane* lane = BestLane(pages, &index);
    if (lane == nullptr) return;
    Check(lane->pages.Take(pages, first.pages), "scheduler: the best lane has the pages");
    const auto slot = std::find(lane->slots.begin(), lane->slots.end(), false);
    *slot = true;
    first.lane = index;
    first.slot = static_cast<uint32_t>(slot - lane->slots.begin());
    first.stats.lane = index;
    first.stats.admitted = now;
    lane->active.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    ++running_;
  }
}

std::optional<ProgramKind> Scheduler::NextPhase(uint32_t index) const {
  const Lane& lane = lanes_[index];
  bool prefill = false;
  bool decode = false;
  for (const auto& sequence : lane.active) (sequence->InPrefill() ? prefill : decode) = true;
  if (!prefill && !decode) return std::nullopt;
  if (prefill && decode) {
    return lane.last == ProgramKind::kPrefill ? ProgramKind::kDecode : ProgramKind::kPrefill;
  }
  return prefill ? ProgramKind::kPrefill : ProgramKind::kDecode;
}

void Scheduler::BuildBatch(uint32_t index, ProgramKind kind, StepBatch& batch,
                           std::vector<Sequence*>& members) {
  Lane& lane = lanes_[index];
  lane.last = kind;
  batch.kind = kind;
  batch.lane = index;
  batch.sequences.clear();
  members.clear();
  if (kind == ProgramKind::kPrefill) {
    BuildPrefill(lane, index, batch, members);
  } else {
    BuildDecode(lane, batch, members);
  }
  batch.top_k = EntriesOf(batch, members);
}

void Scheduler::BuildPrefill(Lane& lane, uint32_t index, StepBatch& batch,
                             std::vector<Sequence*>& members) {
  uint32_t budget = limits_.plan.max_step_tokens;
  for (const auto& sequence : lane.active) {
    Sequence& s = *sequence;
    if (!s.InPrefill()) continue;
    // Logits of every row need room that other rows would take: such a prompt has steps of its own.
    const bool scored = s.request.prompt_logits;
    if (scored && !members.empty()) break;
    const uint32_t most = scored ? std::min(budget, limits_.max_scored_rows[index]) : budget;
    const uint32_t rows = std::min(most, s.n_prompt - s.n_stored);
    const bool last_rows = s.n_stored + rows == s.n_prompt;
    const uint32_t sampled = scored ? rows : (last_rows && s.max_tokens > 0 ? 1 : 0);
    s.step_rows = rows;
    batch.sequences.push_back(
        BatchSequence{.slot = s.slot,
                      .start = s.n_stored,
                      .tokens = std::span(s.context).subspan(s.n_stored, rows),
                      .sampled = sampled,
                      .pages = s.pages.data()});
    members.push_back(&s);
    budget -= rows;
    if (budget == 0 || scored) break;
  }
}

void Scheduler::BuildDecode(Lane& lane, StepBatch& batch, std::vector<Sequence*>& members) {
  for (const auto& sequence : lane.active) {
    if (!sequence->InPrefill()) members.push_back(sequence.get());
  }
  // By slot, so that the order of rows does not depend on who came first.
  std::sort(members.begin(), members.end(),
            [](const Sequence* a, const Sequence* b) { return a->slot < b->slot; });
  for (Sequence* s : members) {
    s->step_rows = 1;
    batch.sequences.push_back(BatchSequence{.slot = s->slot,
                                            .start = s->n_stored,
                                            .tokens = std::span(s->context).subspan(s->n_stored, 1),
                                            .sampled = 1,
                                            .pages = s->pages.data()});
  }
}

std::unique_ptr<Sequence> Scheduler::Release(Sequence* sequence) {
  Lane& lane = lanes_[sequence->lane];
  const auto at = std::find_if(lane.active.begin(), lane.active.end(),
                               [&](const auto& owned) { return owned.get() == sequence; });
  Check(at != lane.active.end(), "scheduler: a sequence of its lane");
  std::unique_ptr<Sequence> owned = std::move(*at);
  lane.active.erase(at);
  lane.slots[owned->slot] = false;
  lane.pages.Give(owned->pages);
  --running_;
  return owned;
}

Sequence* Scheduler::Find(RequestId id) {
  for (const auto& sequence : waiting_) {
    if (sequence->id == id) return sequence.get();
  }
  for (const Lane& lane : lanes_) {
    for (const auto& sequence : lane.active) {
      if (sequence->id == id) return sequence.get();
    }
  }
  return nullptr;
}

std::unique_ptr<Sequence> Scheduler::TakeWaiting(RequestId id) {
  const auto at = std::find_if(waiting_.begin(), waiting_.end(),
                               [id](const auto& sequence) { return sequence->id == id; });
  if (at == waiting_.end()) return nullptr;
  std::unique_ptr<Sequence> taken = std::move(*at);
  waiting_.erase(at);
  return taken;
}

std::vector<RequestId> Scheduler::Ids() const {
  std::vector<RequestId> ids;
  for (const auto& sequence : waiting_) ids.push_back(sequence->id);
  for (const Lane& lane : lanes_) {
    for (const auto& sequence : lane.active) ids.push_back(sequence->id);
  }
  return ids;
}

uint32_t Scheduler::pages_used() const {
  uint32_t used = 0;
  for (const Lane& lane : lanes_) used += lane.pages.used();
  return used;
}

uint32_t Scheduler::pages_total() const {
  uint32_t total = 0;
  for (const Lane& lane : lanes_) total += lane.pages.total();
  return total;
}

}  // namespace tandem
