// A step recorded on devices whose queues can be, and replayed. See step_graph.h.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/run/executor.h"
#include "engine/run/switch_rules.h"

namespace tandem {

void Executor::MakeGraphs() {
  if (setup_.gpu.graphs == GraphUse::kOff) return;
  std::string why = WhyDevicesCannotRecord(ops_[0]->name());
  recorder_ = order_ == nullptr ? nullptr : setup_.backend->recorder();
  for (Ops* ops : ops_) {
    // Asked here, so that what they allocate for it is allocated when the executor is made.
    if (recorder_ != nullptr && ops->recorder() == nullptr) recorder_ = nullptr;
  }
  const bool any = std::any_of(programs_.begin(), programs_.end(),
                               [](const auto& c) { return RecordsSteps(*c.program); });
  if (recorder_ != nullptr && !any) {
    why = kWhyPlanCannotBeRecorded;
    recorder_ = nullptr;
  }
  if (setup_.gpu.graphs == GraphUse::kOn && recorder_ == nullptr) RefuseGraphs(why);
}

// The graph to replay in place of asking for ops; null where there is none.
StepGraph* Executor::GraphOfStep() {
  trace_.launch = LaunchMode::kEager;
  const size_t index = trace_.program_index;
  const uint32_t most = std::max(setup_.limits.max_sequences, setup_.limits.max_step_tokens);
  if (recorder_ == nullptr ||
      !KeyOfStep(*trace_.program, index, microbatches_, top_k_, most, graph_key_)) {
    return nullptr;
  }
  StepGraph* graph = graphs_.Find(graph_key_);
  if (graph != nullptr) trace_.launch = LaunchMode::kGraph;
  return graph;
}

void Executor::RunGraph(StepGraph& graph, LogitsSink& sink) {
  step_rows_.clear();
  for (const Microbatch& mb : microbatches_) step_rows_.push_back({mb.ids, mb.sequences});
  if (!graph.recorded()) Record(graph, sink);
  for (size_t d = 0; d < ops_.size(); ++d) {
    ops_[d]->recorder()->Fill(*graph.rows[d], step_rows_);
  }
  for (StepSegment& segment : graph.segments) {
    if (segment.recording == nullptr) {
      AskForOps(segment.begin, segment.end, sink);
      continue;
    }
    segment.recording->Replay();
    ledger_.BookAgain(segment.hops);
  }
  FetchForNextStep(trace_.program_index);
  pending_ = graph.pending;
  FinishStep();
  TakeLogits(sink);
}

void Executor::Record(StepGraph& graph, LogitsSink& sink) {
  std::vector<StepSegment> segments = CutSegments(programs_[trace_.program_index]);
  size_t begun = 0;
  // Whatever goes wrong, memory that runs out included: the next step begins as if this one had
  // never been recorded.
  const auto give_up = [&] {
    for (size_t d = 0; d < begun; ++d) ops_[d]->recorder()->End();
    graphs_.Forget(&graph);
  };
  try {
    for (; begun < ops_.size(); ++begun) {
      ops_[begun]->recorder()->Begin(step_rows_, graph.key.positions);
    }
    for (StepSegment& segment : segments) {
      if (segment.recordable) RecordSegment(segment, sink);
    }
    graph.rows.clear();
    graph.rows.reserve(ops_.size());
  } catch (const Error& error) {
    give_up();
    Fail(error.code(),
         fmt::format("{} (while the step was recorded; --graphs off runs steps op by op)",
                     error.what()));
  } catch (...) {
    give_up();
    throw;
  }
  for (Ops* ops : ops_) graph.rows.push_back(ops->recorder()->End());
  graph.pending = std::exchange(pending_, {});
  graph.segments = std::move(segments);
  // What was booked so far has not moved.
  ledger_.BeginStep(trace_.program->kind);
}

void Executor::RecordSegment(StepSegment& segment, LogitsSink& sink) {
  const size_t booked = ledger_.rows().size();
  recorder_->Begin();
  try {
    AskForOps(segment.begin, segment.end, sink);
    segment.recording = recorder_->End();
  } catch (...) {
    recorder_->Abandon();
    throw;
  }
  const auto hops = ledger_.rows().subspan(booked);
  segment.hops.assign(hops.begin(), hops.end());
}

}  // namespace tandem
