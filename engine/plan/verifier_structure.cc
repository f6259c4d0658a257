// Structure: counts, ranges and order, before anything else looks at an index. See verifier.h.
#include <fmt/format.h>

#include <algorithm>

#include "engine/base/error.h"
#include "engine/plan/verifier_internal.h"

namespace tandem {
namespace {

// What an op of a kind looks like. Collectives take one operand and give one value a rank.
struct Form {
  uint32_t devices;  // 0: ranks, at least two
  uint32_t in;
  uint32_t out;
  bool block;
  bool units;
};

std::optional<Form> FormOf(const Op& op) {
  switch (op.kind) {
    case OpKind::kRun:
      return Form{1, op.block.value == 0 ? 0u : 1u, 1, true, true};
    case OpKind::kNorm:
      return Form{1, 1, 1, true, false};
    case OpKind::kAdd:
      return Form{1, 2, 1, true, false};
    case OpKind::kSample:
      return Form{1, 1, 0, false, false};
    case OpKind::kAllReduce:
    case OpKind::kReduceScatter:
    case OpKind::kAllGather: {
      auto ranks = static_cast<uint32_t>(op.devices.size());
      return Form{0, ranks, ranks, false, false};
    }
    case OpKind::kTransfer:
      return Form{2, 1, 1, false, false};
    case OpKind::kFetch:
      return Form{2, 0, 0, true, true};
    case OpKind::kKvMove:
      return Form{2, 0, 0, true, true};
    case OpKind::kReservedAllToAll:
    case OpKind::kReservedKvShard:
      break;
  }
  return std::nullopt;
}

Verdict CheckUnits(const BlockGraph& graph, BlockId block, UnitRange units) {
  if (block.value >= graph.size()) {
    return Broken("structure", fmt::format("b{} does not exist: the model has b0 to b{}",
                                           block.value, graph.size() - 1));
  }
  if (units.begin > units.end || units.end > graph.at(block).units) {
    return Broken("structure", fmt::format("{} is outside b{}'s units [0:{})", NameOf(block, units),
                                           block.value, graph.at(block).units));
  }
  return std::nullopt;
}

Verdict CheckDevice(const Plan& plan, DeviceId device) {
  if (device.value >= 0 && static_cast<uint32_t>(device.value) < plan.n_devices) {
    return std::nullopt;
  }
  return Broken("structure",
                fmt::format("{} is no device of the plan, which has d0 to d{}{}", NameOf(device),
                            plan.n_devices - 1,
                            device == kHost ? "; the host only holds weights, to be fetched" : ""));
}

Verdict CheckDevices(const Plan& plan, const Op& op, const Form& form) {
  size_t n = op.devices.size();
  if (form.devices == 0 ? n < 2 : n != form.devices) {
    return Broken("structure",
                  fmt::format("{} names {} devices, want {}", ToString(op.kind), n,
                              form.devices == 0 ? "at least 2" : fmt::to_string(form.devices)));
  }
  for (size_t i = 0; i < n; ++i) {
    bool may_be_host = op.kind == OpKind::kFetch && i == 0;
    if (may_be_host && op.devices[i] == kHost) continue;
    if (Verdict broken = CheckDevice(plan, op.devices[i])) return broken;
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = i + 1; k < n; ++k) {
      if (op.devices[i] != op.devices[k]) continue;
      return Broken("structure",
                    fmt::format("{} names {} twice", ToString(op.kind), NameOf(op.devices[i])));
    }
  }
  return std::nullopt;
}

Verdict CheckMicrobatch(const Program& program, const Op& op) {
  if (op.kind == OpKind::kFetch) {
    if (op.microbatch == 0) return std::nullopt;
    return Broken("structure", "fetch belongs to no microbatch (leave it zero)");
  }
  if (op.microbatch < program.microbatches) return std::nullopt;
  return Broken("structure", fmt::format("m{} does not exist: the program has {} microbatches",
                                         op.microbatch, program.microbatches));
}

Verdict CheckOperands(const Op& op, const Form& form, uint32_t n_values) {
  if (op.in.size() != form.in || op.out.size() != form.out) {
    return Broken("structure",
                  fmt::format("{} takes {} values and gives {}, want {} and {}", ToString(op.kind),
                              op.in.size(), op.out.size(), form.in, form.out));
  }
  for (ValueId id : op.in) {
    if (id < n_values) continue;
    return Broken("structure", fmt::format("operand v{} is not defined by an earlier op", id));
  }
  for (size_t i = 0; i < op.out.size(); ++i) {
    if (op.out[i] == n_values + i) continue;
    return Broken("structure", fmt::format("result v{} where v{} was expected: ids count up from "
                                           "v0 in list order, each given once",
                                           op.out[i], n_values + i));
  }
  return std::nullopt;
}

Verdict CheckEnums(const Op& op) {
  if (op.path > PathKind::kNccl) return Broken("structure", "unknown path");
  if (op.algorithm > Algorithm::kTwoShot) return Broken("structure", "unknown algorithm");
  if (op.queue && *op.queue > QueueKind::kComm) return Broken("structure", "unknown queue");
  if (op.kind == OpKind::kAllReduce && op.devices.size() > 2 && op.algorithm == Algorithm::kNone) {
    return Broken("structure",
                  "an all_reduce over more than two devices names its algorithm: one_shot or "
                  "two_shot");
  }
  return std::nullopt;
}

Verdict CheckPrograms(const Plan& plan) {
  std::vector<int> seen(size_t{2} * plan.n_lanes);
  for (const Program& program : plan.programs) {
    if (program.kind != ProgramKind::kPrefill && program.kind != ProgramKind::kDecode) {
      return Broken("structure", fmt::format("a {} program: only prefill and decode are known",
                                             ToString(program.kind)));
    }
    if (program.lane >= plan.n_lanes) {
      return Broken("structure", fmt::format("{} of lane {}: the plan has {} lanes",
                                             ToString(program.kind), program.lane, plan.n_lanes));
    }
    if (++seen[2 * program.lane + (program.kind == ProgramKind::kDecode)] > 1) {
      return Broken("structure", fmt::format("lane {} has two {} programs", program.lane,
                                             ToString(program.kind)));
    }
    if (program.microbatches < 1 || program.microbatches > kMaxMicrobatches) {
      return Broken("structure", fmt::format("{} of lane {} has {} microbatches, want 1 to {}",
                                             ToString(program.kind), program.lane,
                                             program.microbatches, kMaxMicrobatches));
    }
    if (program.microbatch_kind > MicrobatchKind::kBySequence ||
        (program.microbatch_kind == MicrobatchKind::kNone && program.microbatches != 1)) {
      return Broken("structure",
                    fmt::format("{} of lane {} has {} microbatches and does not say of what kind "
                                "(by_chunk or by_sequence)",
                                ToString(program.kind), program.lane, program.microbatches));
    }
  }
  for (uint32_t i = 0; i < seen.size(); ++i) {
    if (seen[i] == 1) continue;
    return Broken("structure", fmt::format("lane {} has no {} program", i / 2,
                                           i % 2 == 0 ? "prefill" : "decode"));
  }
  return std::nullopt;
}

}  // namespace

std::string NameOf(DeviceId device) {
  return device == kHost ? "host" : fmt::format("d{}", device.value);
}

std::string NameOf(BlockId block, UnitRange units) {
  return fmt::format("b{}[{}:{})", block.value, units.begin, units.end);
}

Verdict CheckPlanForm(const Plan& plan, const BlockGraph& graph, const Rig& rig) {
  if (plan.n_devices < 1 || plan.n_devices > kMaxDevices) {
    return Broken("structure", fmt::format("the plan has {} devices, want 1 to {}", plan.n_devices,
                                           kMaxDevices));
  }
  if (plan.n_devices > rig.size()) {
    return Broken("rig", fmt::format("the plan is for {} devices, rig '{}' has {}", plan.n_devices,
                                     rig.name, rig.size()));
  }
  if (plan.n_lanes < 1 || plan.n_lanes > plan.n_devices) {
    return Broken("structure", fmt::format("the plan has {} lanes on {} devices, want 1 to {}",
                                           plan.n_lanes, plan.n_devices, plan.n_devices));
  }
  if (plan.wire > WireType::kQ8) return Broken("structure", "unknown wire type");
  for (const Place& place : plan.places) {
    Verdict broken = CheckUnits(graph, place.block, place.units);
    if (!broken && place.device != kHost) broken = CheckDevice(plan, place.device);
    if (broken) {
      broken->what = fmt::format("place {} {}: {}", NameOf(place.block, place.units),
                                 NameOf(place.device), broken->what);
      return broken;
    }
  }
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    if (Verdict broken = CheckDevice(plan, plan.slots[i].device)) {
      broken->what = fmt::format("slot s{}: {}", i, broken->what);
      return broken;
    }
    if (plan.slots[i].bytes > kMaxSlotBytes) {
      return Broken("structure", fmt::format("slot s{} has {} bytes, want at most {}", i,
                                             plan.slots[i].bytes.value, kMaxSlotBytes.value));
    }
  }
  return CheckPrograms(plan);
}

Verdict CheckOpForm(const Plan& plan, const BlockGraph& graph, const Program& program, const Op& op,
                    uint32_t n_values) {
  std::optional<Form> form = FormOf(op);
  if (!form) {
    return Broken("structure", fmt::format("{} is not an op of this tandem", ToString(op.kind)));
  }
  if (Verdict broken = CheckDevices(plan, op, *form)) return broken;
  if (Verdict broken = CheckMicrobatch(program, op)) return broken;
  if (form->block) {
    UnitRange units = form->units ? op.units : UnitRange{};
    if (Verdict broken = CheckUnits(graph, op.block, units)) return broken;
  }
  if (op.kind == OpKind::kFetch && (!op.slot || *op.slot >= plan.slots.size())) {
    return Broken("structure", op.slot ? fmt::format("slot s{} does not exist", *op.slot)
                                       : "fetch names no slot");
  }
  if (Verdict broken = CheckEnums(op)) return broken;
  return CheckOperands(op, *form, n_values);
}

}  // namespace tandem
