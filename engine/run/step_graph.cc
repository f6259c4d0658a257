#include "engine/run/step_graph.h"

#include <algorithm>
#include <bit>

namespace tandem {
namespace {

bool Recordable(const CompiledOp& op) {
  switch (op.op->kind) {
    case OpKind::kRun:
    case OpKind::kNorm:
    case OpKind::kAdd:
    case OpKind::kSample:
      return true;
    case OpKind::kKvMove:
      return false;
    default:
      return op.transport != nullptr && op.transport->recordable();
  }
}

}  // namespace

std::vector<StepSegment> CutSegments(const CompiledProgram& compiled) {
  std::vector<StepSegment> segments;
  for (uint32_t i = 0; i < compiled.ops.size(); ++i) {
    const bool recordable = Recordable(compiled.ops[i]);
    if (segments.empty() || segments.back().recordable != recordable) {
      segments.push_back(StepSegment{.begin = i, .recordable = recordable});
    }
    segments.back().end = i + 1;
  }
  return segments;
}

bool KeyOfStep(const Program& program, size_t program_index, std::span<const Microbatch> step,
               uint32_t top_k, uint32_t scratch_rows, StepGraphKey& key) {
  if (!RecordsSteps(program)) return false;
  key.program = program_index;
  key.top_k = top_k;
  key.rows.clear();
  uint32_t total = 0;
  uint32_t longest = kAttentionFold;
  for (const Microbatch& mb : step) {
    if (mb.shape.sampled != mb.shape.rows) return false;
    for (const SequenceRows& sequence : mb.sequences) {
      if (sequence.n_rows != 1) return false;
      longest = std::max(longest, sequence.start + 1);
    }
    key.rows.push_back(mb.rows());
    total += mb.rows();
  }
  key.positions = std::bit_ceil(longest);
  return total <= kMostRecordedRows && (total == 1 || 2 * total <= scratch_rows);
}

StepGraph* StepGraphs::Find(const StepGraphKey& key) {
  const auto found = std::find_if(graphs_.begin(), graphs_.end(),
                                  [&](const StepGraph& graph) { return graph.key == key; });
  if (found != graphs_.end()) {
    graphs_.splice(graphs_.begin(), graphs_, found);
    return &graphs_.front();
  }
  if (graphs_.size() == most_) graphs_.pop_back();
  graphs_.emplace_front();
  graphs_.front().key = key;
  return nullptr;
}

void StepGraphs::Forget(const StepGraph* graph) {
  graphs_.remove_if([graph](const StepGraph& other) { return &other == graph; });
}

}  // namespace tandem
