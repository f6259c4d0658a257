// A step's rows cut into the program's microbatches, as plan.h says: by_chunk at floor(rows * i /
// M), by_sequence by slot modulo M. A microbatch may be empty.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/plan/cost.h"
#include "engine/plan/plan.h"
#include "engine/run/batch.h"
#include "kernels/ops.h"

namespace tandem {

// Rows that lie side by side.
struct RowSpan {
  uint32_t first = 0;
  uint32_t count = 0;
};

struct Microbatch {
  std::vector<int32_t> ids;             // (rows)
  std::vector<SequenceRows> sequences;  // rows of the microbatch, in order
  std::vector<SampledRow> sampled;      // in row order
  std::vector<RowSpan> sampled_spans;   // the same rows, as runs within the microbatch
  MicrobatchShape shape;

  uint32_t rows() const { return shape.rows; }
};

// `out` keeps its memory from step to step.
void CutMicrobatches(const Program& program, const StepBatch& batch, std::vector<Microbatch>& out);

}  // namespace tandem
