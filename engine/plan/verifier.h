// The verifier: one pass in list order that accepts a plan only if executing it computes the model.
// Rules (design.md, section 4): structure, locality, meaning, coverage, tokens, kv, completeness,
// memory, rig. A plan it accepts may be slow, never wrong; a mutation fuzz in the tests holds it to
// that.
//
//   VerifyResult result = VerifyPlan(plan, graph, rig, limits);
//   if (!result.ok()) ... result.refusal->message
#pragma once

#include <optional>
#include <string>
#include <vector>

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
  BlockId block;          // X: residual after this block; N: normed for this block; Y, L: of it
  UnitRange units;        // coverage; the full range when whole
  bool full = true;       // covers every unit (summed or concatenated)
  uint32_t shard = 0;     // token shard index; [floor(T*shard/shards), floor(T*(shard+1)/shards))
  uint32_t shards = 1;
  uint32_t def_op = 0;    // index of the op that gives it
  uint32_t last_use = 0;  // index of the last op that takes it (def_op when none)
};

struct ProgramInfo {
  std::vector<ValueInfo> values;  // by ValueId
};

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
  bool ok() const { return !refusal.has_value(); }
};

VerifyResult VerifyPlan(const Plan& plan, const BlockGraph& graph, const Rig& rig,
                        const PlanLimits& limits);

// VerifyPlan, or Error(kPlan) with the refusal's message.
VerifyResult VerifyOrFail(const Plan& plan, const BlockGraph& graph, const Rig& rig,
                          const PlanLimits& limits);

}  // namespace tandem
