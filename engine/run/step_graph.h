// Steps that are recorded once and replayed (engine/device/recorder.h): which ones, and the
// recordings that were made.
//
// A recording stands for steps of one program whose microbatches have the same numbers of rows, so
// that every message is as long and every value lies where it did; whose sequences are no longer
// than a bound, the next power of two; and whose ids are chosen from as many logits a row. What
// else differs (ids, positions, pages) is read from tables in the devices' memory that are filled
// before each replay. Rows are not padded up to a bucket: padding would be multiplied, and moved
// between devices, and the ledger would have to say so.
//
// Recorded are decode steps of which every sequence brings one row and has it sampled, of at most
// kMostRecordedRows rows and half of those that scratch is cut for (more may take several passes an
// op), of programs that fetch no weights: fetches begin before their step does and run beside
// computation, which a step cut at each of them would not let them. A step like no other before is
// asked for op by op; the second like it is recorded. A program is cut where an op cannot be
// recorded: NCCL's collectives, and moves of KV, whose addresses are the host's to know. Those ops
// are asked for between two replays.
//
// At most kMostStepGraphs recordings are kept; the one that was replayed least recently goes.
//
// One thread, the executor's.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "engine/device/recorder.h"
#include "engine/link/traffic_ledger.h"
#include "engine/plan/schedule.h"
#include "engine/run/compiled_program.h"
#include "engine/run/microbatch.h"
#include "kernels/ops.h"

namespace tandem {

inline constexpr size_t kMostStepGraphs = 64;

struct StepGraphKey {
  size_t program = 0;
  std::vector<uint32_t> rows;  // by microbatch
  uint32_t positions = 0;      // no sequence is longer
  uint32_t top_k = 0;
  bool operator==(const StepGraphKey&) const = default;
};

// Logits, or the largest of them, copied and not yet handed over: rows [first, first + count) of an
// op's.
struct PendingLogits {
  uint32_t op = 0;
  uint64_t first = 0;
  uint64_t count = 0;
  uint64_t at = 0;  // row of the host's buffer
};

// Ops [begin, end) of a program, all recordable or none.
struct StepSegment {
  uint32_t begin = 0;
  uint32_t end = 0;
  bool recordable = false;
  std::unique_ptr<Recording> recording;
  std::vector<HopRow> hops;  // that every replay moves
};

struct StepGraph {
  StepGraphKey key;
  std::vector<StepSegment> segments;                // empty: met once, not recorded yet
  std::vector<std::unique_ptr<RecordedRows>> rows;  // by device
  std::vector<PendingLogits> pending;
  bool recorded() const { return !segments.empty(); }
};

// Where a program is cut. `compiled` has its transports.
std::vector<StepSegment> CutSegments(const CompiledProgram& compiled);

// What steps like this one have in common; false where it is none that is recorded. `scratch_rows`:
// rows that scratch is cut for.
bool KeyOfStep(const Program& program, size_t program_index, std::span<const Microbatch> step,
               uint32_t top_k, uint32_t scratch_rows, StepGraphKey& key);

class StepGraphs {
 public:
  explicit StepGraphs(size_t most = kMostStepGraphs) : most_(most) {}
  // The graph of this key, which becomes the most recent one; null where the key is new: then it is
  // remembered, and the step is to be asked for op by op.
  StepGraph* Find(const StepGraphKey& key);
  void Forget(const StepGraph* graph);
  size_t size() const { return graphs_.size(); }

 private:
  size_t most_;
  std::list<StepGraph> graphs_;  // most recent first
};

}  // namespace tandem
