// Drives the rules over a plan in list order and words the refusal. See verifier.h.
#include "engine/plan/verifier.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/plan/text.h"
#include "engine/plan/verifier_internal.h"

namespace tandem {
namespace {

// The five ops before and after, in text form, and a mark at the op itself.
std::string Surroundings(const Program& program, uint32_t index) {
  constexpr uint32_t kEachSide = 5;
  std::string text;
  uint32_t first = index - std::min(index, kEachSide);
  auto last = static_cast<uint32_t>(std::min<size_t>(program.ops.size(), index + kEachSide + 1));
  for (uint32_t i = first; i < last; ++i) {
    text += fmt::format("\n{} {:>6}  {}", i == index ? '>' : ' ', i, FormatOp(program.ops[i]));
  }
  return text;
}

class Verifier {
 public:
  Verifier(const Plan& plan, const BlockGraph& graph, const Rig& rig, const PlanLimits& limits,
           const VerifyOptions& options)
      : plan_(plan), graph_(graph), rig_(rig), limits_(limits), options_(options) {}

  VerifyResult Verify() {
    Check(graph_.size() >= 2, "a block graph has EMBED and HEAD");
    if (Verdict broken = CheckPlanForm(plan_, graph_, rig_)) {
      RefusePlan(*broken);
    } else if (WalkPrograms() && WalkKv()) {
      CheckMemory();
    }
    if (!result_.ok()) result_.programs.clear();
    return std::move(result_);
  }

 private:
  bool WalkPrograms() {
    WeightRules weights(plan_, graph_, options_);
    compute_lane_.assign(plan_.n_devices, -1);
    for (uint32_t p = 0; p < plan_.programs.size(); ++p) {
      const Program& program = plan_.programs[p];
      ValueRules values(graph_, program, options_);
      weights.BeginProgram(program.lane);
      ProgramInfo& info = result_.programs.emplace_back();
      info.weights.resize(program.ops.size());
      for (uint32_t i = 0; i < program.ops.size(); ++i) {
        const Op& op = program.ops[i];
        Verdict broken = CheckOpForm(plan_, graph_, program, op, values.size());
        if (!broken) broken = CheckLane(program, op);
        if (!broken) broken = CheckPath(op);
        if (!broken) broken = weights.Apply(op, i, info.weights[i]);
        if (!broken) broken = values.Apply(op, i);
        if (broken) return RefuseOp(*broken, p, i);
      }
      if (Verdict broken = values.Finish()) return RefuseProgram(*broken, p);
      info.values = values.Take();
    }
    result_.warnings = weights.Unused();
    return true;
  }

  bool WalkKv() {
    for (uint32_t lane = 0; lane < plan_.n_lanes; ++lane) {
      bool* can_follow = &result_.prefill_can_follow_decode;
      auto found = CheckKv(plan_, lane, graph_, options_, can_follow);
      if (!found) continue;
      auto p = static_cast<uint32_t>(found->program - plan_.programs.data());
      return RefuseOp(found->finding, p, found->op);
    }
    return true;
  }

  void CheckMemory() {
    result_.memory = MemoryNeeds(plan_, result_.programs, graph_, rig_, limits_);
    bool fits = true;
    for (const MemoryRow& row : result_.memory.rows) fits = fits && row.fits();
    if (fits) return;
    RefusePlan({kMemoryRule, WhatDoesNotFit(plan_, result_.programs, graph_, rig_, limits_)});
  }

  // Lanes step independently, so no two may share a compute queue.
  Verdict CheckLane(const Program& program, const Op& op) {
    QueueKind queue = op.queue.value_or(DefaultQueue(op.kind));
    if (queue != QueueKind::kCompute && DefaultQueue(op.kind) != QueueKind::kCompute) {
      return std::nullopt;
    }
    for (DeviceId device : op.devices) {
      if (device == kHost) continue;
      int64_t& lane = compute_lane_[static_cast<size_t>(device.value)];
      if (lane >= 0 && lane != program.lane) {
        return Broken("structure",
                      fmt::format("{} computes for lane {} and for lane {}: lanes share "
                                  "no compute queue",
                                  NameOf(device), lane, program.lane));
      }
      lane = program.lane;
    }
    return std::nullopt;
  }

  // The host's processor has its values and KV moved one to one. Its weights are its own: packed
  // otherwise than a card's, so none are fetched to it or from it.
  Verdict CheckHostsProcessor(const Op& op) {
    const auto on_host = [&](DeviceId d) { return !d.IsHost() && rig_.OnHost(d); };
    const auto n = std::count_if(op.devices.begin(), op.devices.end(), on_host);
    if (n == 0) return std::nullopt;
    const char* want = nullptr;
    if (op.kind == OpKind::kFetch) want = "place the weights on it";
    const bool collective = op.kind == OpKind::kAllReduce || op.kind == OpKind::kReduceScatter ||
                            op.kind == OpKind::kAllGather;
    if (collective) want = "whole values, transferred";
    if (want == nullptr) return std::nullopt;
    return Broken(
        "rig", fmt::format("{} with the host's own processor (want {})", ToString(op.kind), want));
  }

  Verdict CheckPath(const Op& op) {
    // The host's own link has one path.
    if (!IsMovement(op.kind) || op.devices[0].IsHost()) return CheckHostsProcessor(op);
    if (Verdict broken = CheckHostsProcessor(op)) return broken;
    if (op.devices.size() == 2 && (rig_.OnHost(op.devices[0]) || rig_.OnHost(op.devices[1]))) {
      return std::nullopt;
    }
    auto& verdict = paths_[static_cast<size_t>(op.path)];
    if (!verdict) {
      verdict.emplace();
      try {
        rig_.ResolvePath(op.path);
      } catch (const Error& error) {
        *verdict = error.what();
      }
    }
    if (verdict->empty()) return std::nullopt;
    return Broken("rig", *verdict);
  }

  bool RefuseOp(const Finding& finding, uint32_t p, uint32_t i) {
    const Program& program = plan_.programs[p];
    std::string call;
    std::string around;
    if (i < program.ops.size()) {
      uint32_t number = program.ops[i].plugin_call;
      if (number != 0) call = fmt::format(", made by plugin call {}", number);
      around = Surroundings(program, i);
    }
    result_.refusal =
        Refusal{finding.rule,
                fmt::format("plan refused [{}] at op {} of {} (lane {}){}: {}{}", finding.rule, i,
                            ToString(program.kind), program.lane, call, finding.what, around),
                p, i, true};
    return false;
  }

  bool RefuseProgram(const Finding& finding, uint32_t p) {
    const Program& program = plan_.programs[p];
    result_.refusal =
        Refusal{finding.rule,
                fmt::format("plan refused [{}] at the end of {} (lane {}): {}", finding.rule,
                            ToString(program.kind), program.lane, finding.what),
                p, 0, false};
    return false;
  }

  bool RefusePlan(const Finding& finding) {
    result_.refusal =
        Refusal{finding.rule, fmt::format("plan refused [{}]: {}", finding.rule, finding.what), 0,
                0, false};
    return false;
  }

  const Plan& plan_;
  const BlockGraph& graph_;
  const Rig& rig_;
  const PlanLimits& limits_;
  const VerifyOptions& options_;
  VerifyResult result_;
  std::vector<int64_t> compute_lane_;  // by device: the lane that computes there, -1: none so far
  // By path: unset until asked, then "" or why the rig does not have it.
  std::array<std::optional<std::string>, static_cast<size_t>(PathKind::kNccl) + 1> paths_;
};

}  // namespace

bool IsMovement(OpKind kind) {
  switch (kind) {
    case OpKind::kAllReduce:
    case OpKind::kReduceScatter:
    case OpKind::kAllGather:
    case OpKind::kTransfer:
    case OpKind::kFetch:
    case OpKind::kKvMove:
      return true;
    default:
      return false;
  }
}

VerifyResult VerifyPlanWith(const Plan& plan, const BlockGraph& graph, const Rig& rig,
                            const PlanLimits& limits, const VerifyOptions& options) {
  return Verifier(plan, graph, rig, limits, options).Verify();
}

VerifyResult VerifyPlan(const Plan& plan, const BlockGraph& graph, const Rig& rig,
                        const PlanLimits& limits) {
  return VerifyPlanWith(plan, graph, rig, limits, VerifyOptions{});
}

PlanRefused::PlanRefused(const std::string& message, const VerifyResult& verified,
                         std::source_location where)
    : Error(ErrorCode::kPlan, message, where), memory_(verified.memory) {
  if (verified.refusal->rule != kMemoryRule) return;
  for (const MemoryRow& row : memory_.rows) {
    if (!row.fits() && reason_.empty()) reason_ = ShortOfMemory(row);
  }
}

VerifyResult VerifyOrFail(const Plan& plan, const BlockGraph& graph, const Rig& rig,
                          const PlanLimits& limits) {
  VerifyResult result = VerifyPlan(plan, graph, rig, limits);
  if (!result.ok()) throw PlanRefused(result.refusal->message, result);
  return result;
}

}  // namespace tandem
