// One step's rows, as the scheduler hands them to the executor: for each sequence the tokens to
// run, where they stand, and how many of the last rows have their logits wanted.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/plan/plan.h"
#include "kernels/ops.h"

namespace tandem {

struct BatchSequence {
  uint32_t slot = 0;                // of the lane: microbatches by_sequence are cut by it
  uint32_t start = 0;               // position of the first token
  std::span<const int32_t> tokens;  // (n_rows), outlive the step
  uint32_t sampled = 0;             // this many last rows have their logits wanted
  const int32_t* pages = nullptr;   // outlive the step
};

struct StepBatch {
  ProgramKind kind = ProgramKind::kPrefill;
  uint32_t lane = 0;
  std::vector<BatchSequence> sequences;
  // So many of each sampled row's largest logits are enough to choose its id; 0: all logits are
  // wanted.
  uint32_t top_k = 0;
};

// A row of logits: which sequence of the batch it belongs to, and which of its rows.
struct SampledRow {
  uint32_t sequence = 0;
  uint32_t row = 0;  // of the sequence's tokens in this step
};

// Told of logits as SAMPLE ops run, on the executor's thread; the time it takes is the op's.
class LogitsSink {
 public:
  virtual ~LogitsSink() = default;
  // logits (rows.size(), vocab), valid during the call. Writes the chosen ids; rows without a
  // choice get any id.
  virtual void OnLogits(std::span<const SampledRow> rows, const float* logits,
                        std::span<int32_t> ids) = 0;
  // The same from the k largest logits of each row, entries (rows.size(), k), where the batch says
  // that they are enough and they were looked for on the device.
  virtual void OnTopK(std::span<const SampledRow> rows, const TopEntry* entries, uint32_t k,
                      std::span<int32_t> ids) = 0;
};

}  // namespace tandem
