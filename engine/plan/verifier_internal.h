// The verifier's parts, one rule family a class; verifier.cc drives them in list order. Internal to
// engine/plan and its tests.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/plan/verifier.h"

namespace tandem {

// Why a rule is broken; nothing when it holds.
struct Finding {
  const char* rule;
  std::string what;
};
using Verdict = std::optional<Finding>;

inline Verdict Broken(const char* rule, std::string what) { return Finding{rule, std::move(what)}; }

// Rules that a test can switch off, to show that the mutation fuzz would notice their absence.
enum class RuleOff : uint32_t {
  kNone = 0,
  kResidence = 1,        // RUN reads weights that are not there
  kSlotContent = 2,      // a slot keeps what any FETCH of the program ever put there
  kKvHome = 4,           // attention reads KV that another device holds
  kCoverageMissing = 8,  // a reduce or gather lacks units
  kCoverageTwice = 16,   // a unit is counted twice
  kMeaning = 32,         // NORM and ADD take a residual of any block
  kTokens = 64,          // token shards pass for whole values
  kMicrobatch = 128,     // operands of another microbatch
};
struct VerifyOptions {
  uint32_t off = 0;
  bool Off(RuleOff rule) const { return (off & static_cast<uint32_t>(rule)) != 0; }
};
VerifyResult VerifyPlanWith(const Plan& plan, const BlockGraph& graph, const Rig& rig,
                            const PlanLimits& limits, const VerifyOptions& options);

// Bounds that keep masks and tables small, and sums of bytes far from overflow.
inline constexpr uint32_t kMaxDevices = 64;
inline constexpr uint32_t kMaxMicrobatches = 256;
inline constexpr uint32_t kMaxKvClasses = 4096;
inline constexpr Bytes kMaxSlotBytes{uint64_t{1} << 42};

// "d0", "host"; "b17[0:4)"; "v31 (Y of b17[0:4), m1, on d0)".
std::string NameOf(DeviceId device);
std::string NameOf(BlockId block, UnitRange units);
std::string NameOf(ValueId id, const ValueInfo& value);

// Whether ops of this kind take a path and move bytes over it from memory to memory.
bool IsMovement(OpKind kind);

// Structure: the plan without its ops, and each op's form. Nothing else looks at an index before
// these have.
Verdict CheckPlanForm(const Plan& plan, const BlockGraph& graph, const Rig& rig);
Verdict CheckOpForm(const Plan& plan, const BlockGraph& graph, const Program& program, const Op& op,
                    uint32_t n_values);

// Locality, meaning, coverage and tokens of one program's values.
class ValueRules {
 public:
  ValueRules(const BlockGraph& graph, const Program& program, const VerifyOptions& options);
  uint32_t size() const { return static_cast<uint32_t>(values_.size()); }
  Verdict Apply(const Op& op, uint32_t index);
  Verdict Finish() const;  // completeness
  std::vector<ValueInfo> Take() { return std::move(values_); }

 private:
  Verdict Run(const Op& op);
  Verdict Norm(const Op& op);
  Verdict Add(const Op& op);
  Verdict Sample(const Op& op);
  Verdict Reduce(const Op& op);
  Verdict Gather(const Op& op);
  Verdict GatherShards(const Op& op);
  Verdict Operands(const Op& op) const;
  Verdict TakesResidual(const Op& op, const ValueInfo& x) const;
  Verdict Covers(const Op& op, const std::vector<ValueId>& parts, uint32_t units) const;
  const ValueInfo& In(const Op& op, size_t i) const { return values_[op.in[i]]; }
  ValueInfo& Define(const Op& op, DeviceId device, Meaning meaning, BlockId block);

  const BlockGraph& graph_;
  const Program& program_;
  const VerifyOptions& options_;
  std::vector<ValueInfo> values_;
  std::vector<bool> sampled_;  // by microbatch
  uint32_t index_ = 0;         // of the op being applied
};

// Where weights are: resident ranges, and what slots hold while a program runs.
class WeightRules {
 public:
  WeightRules(const Plan& plan, const BlockGraph& graph, const VerifyOptions& options);
  void BeginProgram(uint32_t lane);
  // Fills `sources` for a RUN.
  Verdict Apply(const Op& op, uint32_t index, std::vector<WeightSource>& sources);
  // Places that no RUN and no FETCH of any program reads, and slots that nothing fills.
  std::vector<std::string> Unused() const;

 private:
  struct Content {
    BlockId block;
    UnitRange units;
    uint32_t fetch_op = 0;
  };
  const std::vector<UnitRange>& Resident(DeviceId device, BlockId block) const;
  void MarkUsed(DeviceId device, BlockId block, UnitRange units);
  Verdict Run(const Op& op, std::vector<WeightSource>& sources);
  Verdict Fetch(const Op& op, uint32_t index);

  const Plan& plan_;
  const BlockGraph& graph_;
  const VerifyOptions& options_;
  std::vector<std::vector<UnitRange>> resident_;  // [device + 1][block]: disjoint, ascending
  std::vector<std::vector<UnitRange>> used_;      // same index; as they came
  std::vector<std::vector<Content>> slots_;       // by slot: the last FETCH's (all, in a test)
  std::vector<int64_t> slot_lane_;                // the lane that fills a slot, -1 before
  uint32_t lane_ = 0;
};

// Sequences of a lane fall into classes by slot number, fine enough that both programs treat all
// sequences of a class alike: slot s is in class s mod KvClasses. Nothing when there would be too
// many.
std::optional<uint32_t> KvClasses(const Program& a, const Program& b);

// KV residence over the life of a sequence in one lane.
struct KvFinding {
  Finding finding;
  const Program* program;
  uint32_t op;
};
std::optional<KvFinding> CheckKv(const Plan& plan, uint32_t lane, const BlockGraph& graph,
                                 const VerifyOptions& options, bool* prefill_can_follow_decode);

}  // namespace tandem
