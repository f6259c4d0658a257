// KV residence over the life of a sequence: a prompt in one chunk or several, then decode steps.
// The state is a set of devices for each (class of sequences, attention unit): those that hold all
// rows from before the step. Each program is run twice; the second time proves that its homes are a
// fixed point, because what a step leaves depends only on where its rows went.
#include <fmt/format.h>

#include <numeric>
#include <utility>

#include "engine/plan/verifier_internal.h"

namespace tandem {
namespace {

using DeviceMask = uint64_t;  // bit d: device d; kMaxDevices of them

DeviceMask MaskOf(DeviceId device) { return DeviceMask{1} << device.value; }

std::string NamesOf(DeviceMask mask) {
  std::string names;
  for (int32_t d = 0; d < static_cast<int32_t>(kMaxDevices); ++d) {
    if ((mask >> d & 1) == 0) continue;
    names += fmt::format("{}d{}", names.empty() ? "" : ", ", d);
  }
  return names.empty() ? "no device" : names;
}

bool BySequence(const Program& program) {
  return program.microbatch_kind == MicrobatchKind::kBySequence;
}

class LaneKv {
 public:
  LaneKv(const BlockGraph& graph, uint32_t classes, const VerifyOptions& options)
      : graph_(graph), options_(options), classes_(classes), first_unit_(graph.size()) {
    for (uint32_t b = 0; b < graph.size(); ++b) {
      first_unit_[b] = units_;
      if (graph.blocks[b].kind == BlockKind::kAttention) units_ += graph.blocks[b].units;
    }
    // A sequence begins without rows, which every device holds.
    held_.assign(size_t{classes} * units_, ~DeviceMask{0});
  }

  // Runs a program once. `when` ends the sentence of a finding.
  std::optional<KvFinding> Step(const Program& program, const char* when) {
    stepped_.assign(size_t{program.microbatches} * units_, 0);
    for (uint32_t i = 0; i < program.ops.size(); ++i) {
      const Op& op = program.ops[i];
      Verdict broken;
      if (op.kind == OpKind::kKvMove) {
        broken = Move(program, op);
      } else if (op.kind == OpKind::kRun && graph_.at(op.block).kind == BlockKind::kAttention) {
        broken = Attend(program, op);
      }
      if (broken) {
        broken->what += when;
        return KvFinding{std::move(*broken), &program, i};
      }
    }
    for (uint32_t m = 0; m < program.microbatches; ++m) {
      auto [first, stride] = ClassesOf(program, m);
      for (uint32_t c = first; c < classes_; c += stride) {
        for (uint32_t u = 0; u < units_; ++u) held_[c * units_ + u] &= stepped_[m * units_ + u];
      }
    }
    return std::nullopt;
  }

 private:
  // The classes whose sequences a microbatch may have: first, first + stride, ...
  std::pair<uint32_t, uint32_t> ClassesOf(const Program& program, uint32_t microbatch) const {
    if (!BySequence(program)) return {0, 1};
    return {microbatch, program.microbatches};
  }

  // The devices that hold the earlier rows of a unit, for all sequences that the microbatch may
  // have.
  DeviceMask Held(const Program& program, uint32_t microbatch, uint32_t unit) const {
    DeviceMask mask = ~DeviceMask{0};
    auto [first, stride] = ClassesOf(program, microbatch);
    for (uint32_t c = first; c < classes_; c += stride) mask &= held_[c * units_ + unit];
    return mask;
  }

  Verdict Attend(const Program& program, const Op& op) {
    for (uint32_t u = op.units.begin; u < op.units.end; ++u) {
      uint32_t unit = first_unit_[op.block.value] + u;
      DeviceMask device = MaskOf(op.devices[0]);
      DeviceMask& stepped = stepped_[op.microbatch * units_ + unit];
      if ((stepped & device) != 0) {
        return Broken("kv",
                      fmt::format("unit {} of b{} has run for m{} on {} before: its KV would be "
                                  "written twice",
                                  u, op.block.value, op.microbatch, NameOf(op.devices[0])));
      }
      stepped |= device;
      if (options_.Off(RuleOff::kKvHome)) continue;
      DeviceMask held = Held(program, op.microbatch, unit);
      if ((held & device) == 0) {
        return Broken("kv",
                      fmt::format("run needs the KV of unit {} of b{} on {}, but {} holds all "
                                  "of it",
                                  u, op.block.value, NameOf(op.devices[0]), NamesOf(held)));
      }
      // Rows of one sequence may lie in several chunks; each attends to those before it.
      for (uint32_t m = 0; !BySequence(program) && m < op.microbatch; ++m) {
        DeviceMask before = stepped_[m * units_ + unit];
        if ((before & device) != 0) continue;
        return Broken("kv", fmt::format("chunk m{} of b{} runs on {} without the KV of chunk m{} "
                                        "(unit {}: {} holds it at this point)",
                                        op.microbatch, op.block.value, NameOf(op.devices[0]), m, u,
                                        NamesOf(before)));
      }
    }
    return std::nullopt;
  }

  Verdict Move(const Program& program, const Op& op) {
    if (graph_.at(op.block).kind != BlockKind::kAttention) {
      return Broken("kv", fmt::format("b{} ({}) has no KV to move", op.block.value,
                                      ToString(graph_.at(op.block).kind)));
    }
    for (uint32_t u = op.units.begin; u < op.units.end; ++u) {
      uint32_t unit = first_unit_[op.block.value] + u;
      DeviceMask& stepped = stepped_[op.microbatch * units_ + unit];
      DeviceMask held = Held(program, op.microbatch, unit);
      if ((stepped & MaskOf(op.devices[0])) == 0) {
        return Broken("kv", fmt::format("kv_move moves the rows this step has written, and {} has "
                                        "none of unit {} of b{} for m{} at this point",
                                        NameOf(op.devices[0]), u, op.block.value, op.microbatch));
      }
      if ((held & MaskOf(op.devices[1])) == 0 && !options_.Off(RuleOff::kKvHome)) {
        return Broken("kv",
                      fmt::format("kv_move moves the rows this step has written, and {} lacks "
                                  "those before them (unit {} of b{})",
                                  NameOf(op.devices[1]), u, op.block.value));
      }
      stepped |= MaskOf(op.devices[1]);
    }
    return std::nullopt;
  }

  const BlockGraph& graph_;
  const VerifyOptions& options_;
  uint32_t classes_;
  std::vector<uint32_t> first_unit_;  // by block: index of its first attention unit
  uint32_t units_ = 0;                // attention units of all blocks
  std::vector<DeviceMask> held_;      // [class][unit]: rows from before this step
  std::vector<DeviceMask> stepped_;   // [microbatch][unit]: this step's rows
};

}  // namespace

std::optional<uint32_t> KvClasses(const Program& a, const Program& b) {
  uint32_t classes =
      std::lcm(BySequence(a) ? a.microbatches : 1u, BySequence(b) ? b.microbatches : 1u);
  if (classes > kMaxKvClasses) return std::nullopt;
  return classes;
}

std::optional<KvFinding> CheckKv(const Plan& plan, uint32_t lane, const BlockGraph& graph,
                                 const VerifyOptions& options, bool* prefill_can_follow_decode) {
  const Program& prefill = plan.program(ProgramKind::kPrefill, lane);
  const Program& decode = plan.program(ProgramKind::kDecode, lane);
  std::optional<uint32_t> classes = KvClasses(prefill, decode);
  if (!classes) {
    return KvFinding{
        {"kv", fmt::format("{} and {} microbatches by sequence make more than {} classes "
                           "of sequences: use counts with a common multiple",
                           prefill.microbatches, decode.microbatches, kMaxKvClasses)},
        &decode,
        0};
  }
  LaneKv kv(graph, *classes, options);
  if (auto finding = kv.Step(prefill, "")) return finding;
  if (auto finding = kv.Step(prefill, ", when a prompt goes on in a second step")) return finding;
  if (auto finding = kv.Step(decode, ", in the decode step after prefill")) return finding;
  if (auto finding = kv.Step(decode, ", in a second decode step")) return finding;
  if (kv.Step(prefill, "")) *prefill_can_follow_decode = false;
  return std::nullopt;
}

}  // namespace tandem
