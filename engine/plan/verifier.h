// The verifier: one pass in list order that accepts a plan only if executing it computes the model.
// Rules: structure, locality, meaning, coverage, tokens, kv, completeness,
// memory, rig. A plan it accepts may be slow, never wrong; a mutation fuzz in the tests holds it to
// that.
//
// What it takes an executor to do, where the op list alone does not say it:
// - RUN reads its weights from ProgramInfo::weights. A FETCH replaces all that its slot held. FETCH
// runs
//   in every step: it has no microbatch, so none that is empty excuses it.
// - RUN(ATTENTION) appends the microbatch's rows to the KV of its units on its device. KV_MOVE
// copies
//   those same rows, the ones this step has appended, to `peer`, which already holds the rows
//   before them; the source keeps its copy.
// - A reduce gives its first rank token shard 0, its second shard 1, and so on.
//
//   VerifyResult result = VerifyPlan(plan, graph, rig, limits);
//   if (!result.ok()) ... result.refusal->message
#pragma once

#include <optional>
#include <source_location>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/model/block_graph.h"
#include "engine/plan/memory.h"
#include "engine/plan/plan.h"

namespace tandem {

// Meanings of values.
enum class Meaning : uint8_t { kX, kN, kY, kLogits };

// What the verifier knows of a value; the executor allocates by it.
struct ValueInfo {
  DeviceId device;
  uint32_t microbatch = 0;
  Meaning meaning = Meaning::kX;
  BlockId block;       // X: residual after this block; N: normed for this block; Y, L: of it
  UnitRange units;     // coverage; the full range when whole
  bool full = true;    // covers every unit (summed or concatenated)
  uint32_t shard = 0;  // token shard index; [floor(T*shard/shards), floor(T*(shard+1)/shards))
  uint32_t shards = 1;
  uint32_t def_op = 0;    // index of the op that gives it
  uint32_t last_use = 0;  // index of the last op that takes it (def_op when none)
};

// Where a RUN reads some of its units: this device's resident weights, or a slot.
struct WeightSource {
  UnitRange units;
  std::optional<SlotId> slot;  // resident when empty
  uint32_t fetch_op = 0;       // index of the FETCH that filled the slot
};

struct ProgramInfo {
  std::vector<ValueInfo> values;  // by ValueId
  // By op index; empty but for a RUN with units. Its units in ascending order, each once, in as few
  // pieces as there can be: one piece computes as an unsplit device does, to the bit. Resident
  // units that several places name are one piece.
  std::vector<std::vector<WeightSource>> weights;
};

inline constexpr const char* kMemoryRule = "memory";

struct Refusal {
  std::string rule;      // "coverage", "kv", ...
  std::string message;   // the whole text for people: op, rule, ops around it, plugin call
  uint32_t program = 0;  // index into Plan::programs
  uint32_t op = 0;       // index into its ops; meaningful when at_op
  bool at_op = false;
};

struct VerifyResult {
  std::optional<Refusal> refusal;
  std::vector<ProgramInfo> programs;  // parallel to Plan::programs, when accepted
  MemoryTable memory;                 // shown also on success
  std::vector<std::string> warnings;  // placed units that nothing uses, and the like
  // A prompt may go on after its sequence has decoded (the next turn of a chat on kept KV). False
  // when DECODE leaves the KV where PREFILL cannot read it: such a turn is prefilled from its
  // start.
  bool prefill_can_follow_decode = true;
  bool ok() const { return !refusal.has_value(); }
};

VerifyResult VerifyPlan(const Plan& plan, const BlockGraph& graph, const Rig& rig,
                        const PlanLimits& limits);

// Error(kPlan): a plan that the verifier refused, with what it knew of the plan's memory.
class PlanRefused : public Error {
 public:
  // REQUIRES: !verified.ok().
  PlanRefused(const std::string& message, const VerifyResult& verified,
              std::source_location where = std::source_location::current());

  const MemoryTable& memory() const { return memory_; }
  // Of a plan that does not fit, in a few words: "d0 needs 72.2 GB of 25.8 GB"; else "".
  const std::string& reason() const { return reason_; }

 private:
  MemoryTable memory_;
  std::string reason_;
};

// VerifyPlan, or PlanRefused with the refusal's message.
VerifyResult VerifyOrFail(const Plan& plan, const BlockGraph& graph, const Rig& rig,
                          const PlanLimits& limits);

}  // namespace tandem
