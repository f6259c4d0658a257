// Who runs when: the queue, the lanes with their slots and KV pages, and the rows of the next step.
// Pure bookkeeping, without kernels or clocks of its own; the engine drives it from one thread.
//
// Continuous batching with chunked prefill. Requests wait in order of arrival; the first one is
// admitted to the lane with the fewest sequences that has a slot and all the pages the request can
// ever need (so nothing is evicted), and none overtakes it. A lane alternates between a PREFILL
// step over prompts, oldest first, of at most max_step_tokens rows, and a DECODE step over all that
// generate: decode waits at most one chunk.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/run/batch.h"
#include "engine/run/engine.h"
#include "engine/run/kv_cache.h"
#include "engine/run/sampler.h"

namespace tandem {

// One request on its way through.
struct Sequence {
  RequestId id = 0;
  Request request;
  std::shared_ptr<RequestListener> listener;
  RequestStats stats;
  std::vector<int32_t> context;  // prompt and generated tokens
  uint32_t n_prompt = 0;
  uint32_t max_tokens = 0;  // clamped to the slot's context
  uint32_t n_stored = 0;    // tokens whose KV is in the cache
  uint32_t lane = 0;
  uint32_t slot = 0;
  std::vector<int32_t> pages;
  bool cancelled = false;

  // What the step under way gave it.
  uint32_t step_rows = 0;
  std::optional<Choice> choice;
  std::vector<float> prompt_logits;  // (step_rows, vocab), when asked for
  std::string error;

  uint32_t n_generated() const { return static_cast<uint32_t>(context.size()) - n_prompt; }
  bool InPrefill() const { return n_stored < n_prompt; }
};

struct SchedulerLimits {
  PlanLimits plan;
  uint32_t n_lanes = 1;
  uint32_t pages_per_lane = 0;
  std::vector<uint32_t> max_scored_rows;  // by lane: rows of a step whose logits are all wanted
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  // Tokens that a sequence may have in all.
  uint32_t slot_context() const { return slot_context_; }

  void Enqueue(std::unique_ptr<Sequence> sequence);
  // Moves requests from the queue into lanes while they fit; `now` is when.
  void Admit(Nanos now);

  bool HasActive(uint32_t lane) const { return !lanes_[lane].active.empty(); }
  // Which program the lane runs next; nothing when it has no sequences.
  std::optional<ProgramKind> NextPhase(uint32_t lane) const;
  // Fills the batch and the sequences in it, in step with each other. REQUIRES: NextPhase is
  // `kind`.
  void BuildBatch(uint32_t lane, ProgramKind kind, StepBatch& batch,
                  std::vector<Sequence*>& members);

  // Takes a sequence out of its lane; its slot and pages are free at once.
  std::unique_ptr<Sequence> Release(Sequence* sequence);
  // The sequence with this id, waiting or active; null when there is none.
  Sequence* Find(RequestId id);
  // Takes a sequence that still waits out of the queue; null when it does not wait.
  std::unique_ptr<Sequence> TakeWaiting(RequestId id);
  // All ids, waiting and active.
  std::vector<RequestId> Ids() const;

  uint32_t running() const { return running_; }
  uint32_t waiting() const { return static_cast<uint32_t>(waiting_.size()); }
  uint32_t pages_used() const;
  uint32_t pages_total() const;

 private:
  struct Lane {
    explicit Lane(uint32_t n_pages) : pages(n_pages) {}
    PageAllocator pages;
    std::vector<std::unique_ptr<Sequence>> active;  // oldest first
    std::vector<bool> slots;                        // taken
    ProgramKind last = ProgramKind::kDecode;
  };
  Lane* BestLane(uint32_t pages, uint32_t* index);
  void BuildPrefill(Lane& lane, uint32_t index, StepBatch& batch, std::vector<Sequence*>& members);
  void BuildDecode(Lane& lane, StepBatch& batch, std::vector<Sequence*>& members);

  SchedulerLimits limits_;
  uint32_t slot_context_;
  std::vector<Lane> lanes_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  uint32_t running_ = 0;
};

}  // namespace tandem
