// What each value is: locality, meaning, coverage, tokens, completeness. Meaning and microbatch fix
// a value's content wherever it lives, so it is enough that every op gets the right meanings.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/plan/verifier_internal.h"

namespace tandem {

std::string NameOf(ValueId id, const ValueInfo& value) {
  std::string what;
  switch (value.meaning) {
    case Meaning::kX:
      what = fmt::format("X after b{}", value.block.value);
      break;
    case Meaning::kN:
      what = fmt::format("N for b{}", value.block.value);
      break;
    case Meaning::kY:
      what = fmt::format("Y of b{}", value.block.value);
      break;
    case Meaning::kLogits:
      what = "logits";
      break;
  }
  if (!value.full) what += fmt::format(" over [{}:{})", value.units.begin, value.units.end);
  if (value.shards > 1) what += fmt::format(", token shard {} of {}", value.shard, value.shards);
  return fmt::format("v{} ({}, m{}, on {})", id, what, value.microbatch, NameOf(value.device));
}

ValueRules::ValueRules(const BlockGraph& graph, const Program& program,
                       const VerifyOptions& options)
    : graph_(graph), program_(program), options_(options), sampled_(program.microbatches) {
  values_.reserve(program.ops.size() + 8);
}

Verdict ValueRules::Apply(const Op& op, uint32_t index) {
  index_ = index;
  if (Verdict broken = Operands(op)) return broken;
  for (ValueId id : op.in) values_[id].last_use = index;
  switch (op.kind) {
    case OpKind::kRun:
      return Run(op);
    case OpKind::kNorm:
      return Norm(op);
    case OpKind::kAdd:
      return Add(op);
    case OpKind::kSample:
      return Sample(op);
    case OpKind::kAllReduce:
    case OpKind::kReduceScatter:
      return Reduce(op);
    case OpKind::kAllGather:
      return Gather(op);
    case OpKind::kTransfer: {
      ValueInfo moved = In(op, 0);
      moved.device = op.devices[1];
      moved.def_op = moved.last_use = index_;
      values_.push_back(moved);
      return std::nullopt;
    }
    default:
      return std::nullopt;
  }
}

Verdict ValueRules::Operands(const Op& op) const {
  for (size_t i = 0; i < op.in.size(); ++i) {
    const ValueInfo& value = In(op, i);
    // Collectives take their i-th operand on their i-th rank; every other op on its first device.
    DeviceId device = op.in.size() == op.devices.size() ? op.devices[i] : op.devices[0];
    if (value.device != device) {
      return Broken("locality", fmt::format("{} is needed on {}: transfer it there",
                                            NameOf(op.in[i], value), NameOf(device)));
    }
    if (value.microbatch != op.microbatch && !options_.Off(RuleOff::kMicrobatch)) {
      return Broken("structure", fmt::format("{} is of another microbatch than the op's m{}",
                                             NameOf(op.in[i], value), op.microbatch));
    }
  }
  return std::nullopt;
}

ValueInfo& ValueRules::Define(const Op& op, DeviceId device, Meaning meaning, BlockId block) {
  ValueInfo value;
  value.device = device;
  value.microbatch = op.microbatch;
  value.meaning = meaning;
  value.block = block;
  value.units = graph_.at(block).AllUnits();
  value.def_op = value.last_use = index_;
  return values_.emplace_back(value);
}

Verdict ValueRules::Run(const Op& op) {
  if (op.block.value != 0) {
    const ValueInfo& n = In(op, 0);
    bool normed = n.meaning == Meaning::kN && n.block == op.block;
    if (!normed && !(options_.Off(RuleOff::kMeaning) && n.meaning == Meaning::kN)) {
      return Broken("meaning", fmt::format("run of b{} takes N for b{}, got {}", op.block.value,
                                           op.block.value, NameOf(op.in[0], n)));
    }
    if (n.shards != 1 && !options_.Off(RuleOff::kTokens)) {
      return Broken("tokens", fmt::format("run takes whole tokens, got {}: all_gather it first",
                                          NameOf(op.in[0], n)));
    }
  }
  Meaning meaning = op.block.value == 0         ? Meaning::kX
                    : op.block == graph_.head() ? Meaning::kLogits
                                                : Meaning::kY;
  ValueInfo& y = Define(op, op.devices[0], meaning, op.block);
  y.full = op.units == y.units;
  y.units = op.units;
  return std::nullopt;
}

// NORM and ADD of block b take the whole residual after block b - 1.
Verdict ValueRules::TakesResidual(const Op& op, const ValueInfo& x) const {
  bool right = x.meaning == Meaning::kX && x.block.value + 1 == op.block.value;
  if (!right && !(options_.Off(RuleOff::kMeaning) && x.meaning == Meaning::kX)) {
    return Broken("meaning", fmt::format("{} of b{} takes X after b{}, got {}", ToString(op.kind),
                                         op.block.value, op.block.value - 1, NameOf(op.in[0], x)));
  }
  if (!x.full && !options_.Off(RuleOff::kCoverageMissing)) {
    return Broken("coverage",
                  fmt::format("{} takes every unit, got the partial {}: reduce it first",
                              ToString(op.kind), NameOf(op.in[0], x)));
  }
  return std::nullopt;
}

Verdict ValueRules::Norm(const Op& op) {
  if (op.block.value == 0) return Broken("meaning", "b0 (EMBED) has no norm");
  const ValueInfo& x = In(op, 0);
  if (Verdict broken = TakesResidual(op, x)) return broken;
  // HEAD's norm keeps the sampled rows alone, and a shard does not know which of them are its own.
  if (op.block == graph_.head() && x.shards != 1 && !options_.Off(RuleOff::kTokens)) {
    return Broken("tokens",
                  fmt::format("the norm of HEAD takes whole tokens, got {}: all_gather it "
                              "first",
                              NameOf(op.in[0], x)));
  }
  uint32_t shard = x.shard, shards = x.shards;
  ValueInfo& n = Define(op, op.devices[0], Meaning::kN, op.block);
  n.shard = shard;
  n.shards = shards;
  return std::nullopt;
}

Verdict ValueRules::Add(const Op& op) {
  if (op.block.value == 0 || op.block == graph_.head()) {
    return Broken("meaning", fmt::format("b{} is not added to a residual", op.block.value));
  }
  const ValueInfo& x = In(op, 0);
  const ValueInfo& y = In(op, 1);
  if (Verdict broken = TakesResidual(op, x)) return broken;
  if (y.meaning != Meaning::kY || y.block != op.block) {
    return Broken("meaning", fmt::format("add of b{} takes Y of b{}, got {}", op.block.value,
                                         op.block.value, NameOf(op.in[1], y)));
  }
  if (!y.full && !options_.Off(RuleOff::kCoverageMissing)) {
    return Broken("coverage", fmt::format("add takes every unit, got the partial {}: reduce it "
                                          "first",
                                          NameOf(op.in[1], y)));
  }
  if ((x.shard != y.shard || x.shards != y.shards) && !options_.Off(RuleOff::kTokens)) {
    return Broken("tokens", fmt::format("add takes the same tokens, got {} and {}",
                                        NameOf(op.in[0], x), NameOf(op.in[1], y)));
  }
  uint32_t shard = x.shard, shards = x.shards;
  ValueInfo& sum = Define(op, op.devices[0], Meaning::kX, op.block);
  sum.shard = shard;
  sum.shards = shards;
  return std::nullopt;
}

Verdict ValueRules::Sample(const Op& op) {
  const ValueInfo& logits = In(op, 0);
  if (logits.meaning != Meaning::kLogits) {
    return Broken("meaning", fmt::format("sample takes logits, got {}", NameOf(op.in[0], logits)));
  }
  if (!logits.full && !options_.Off(RuleOff::kCoverageMissing)) {
    return Broken("coverage",
                  fmt::format("sample takes the whole vocabulary, got {}: all_gather it "
                              "first",
                              NameOf(op.in[0], logits)));
  }
  if (sampled_[op.microbatch]) {
    return Broken("completeness", fmt::format("m{} is sampled a second time", op.microbatch));
  }
  sampled_[op.microbatch] = true;
  return std::nullopt;
}

// The parts' coverage is disjoint and covers [0, units).
Verdict ValueRules::Covers(const Op& op, const std::vector<ValueId>& parts, uint32_t units) const {
  std::vector<std::pair<UnitRange, ValueId>> ranges;
  for (ValueId id : parts) {
    if (!values_[id].units.empty()) ranges.emplace_back(values_[id].units, id);
  }
  std::sort(ranges.begin(), ranges.end());
  uint32_t next = 0;
  for (size_t i = 0; i < ranges.size(); ++i) {
    auto [range, id] = ranges[i];
    if (range.begin < next && !options_.Off(RuleOff::kCoverageTwice)) {
      ValueId before = ranges[i - 1].second;
      return Broken(
          "coverage",
          fmt::format("{} counts unit {} twice: it is in {} and in {}", ToString(op.kind),
                      range.begin, NameOf(before, values_[before]), NameOf(id, values_[id])));
    }
    if (range.begin > next && !options_.Off(RuleOff::kCoverageMissing)) {
      return Broken("coverage", fmt::format("{} lacks unit {}: the parts go on with {}",
                                            ToString(op.kind), next, NameOf(id, values_[id])));
    }
    next = std::max(next, range.end);
  }
  if (next < units && !options_.Off(RuleOff::kCoverageMissing)) {
    return Broken("coverage",
                  fmt::format("{} lacks unit {} of [0:{})", ToString(op.kind), next, units));
  }
  return std::nullopt;
}

Verdict ValueRules::Reduce(const Op& op) {
  ValueInfo first = In(op, 0);
  for (size_t i = 0; i < op.in.size(); ++i) {
    const ValueInfo& part = In(op, i);
    bool sums =
        part.meaning == Meaning::kY || (part.meaning == Meaning::kX && part.block.value == 0);
    if (!sums) {
      return Broken(
          "meaning",
          fmt::format("{} takes outputs of a block that sums, got {}{}", ToString(op.kind),
                      NameOf(op.in[i], part),
                      part.meaning == Meaning::kLogits ? ": logits are joined by all_gather" : ""));
    }
    if (part.meaning != first.meaning || part.block != first.block) {
      return Broken("meaning",
                    fmt::format("{} takes parts of one block, got {} and {}", ToString(op.kind),
                                NameOf(op.in[0], first), NameOf(op.in[i], part)));
    }
    if (part.shards != 1 && !options_.Off(RuleOff::kTokens)) {
      return Broken("tokens", fmt::format("{} takes whole tokens, got {}", ToString(op.kind),
                                          NameOf(op.in[i], part)));
    }
  }
  if (Verdict broken = Covers(op, op.in, graph_.at(first.block).units)) return broken;
  for (uint32_t i = 0; i < op.devices.size(); ++i) {
    ValueInfo& whole = Define(op, op.devices[i], first.meaning, first.block);
    if (op.kind == OpKind::kReduceScatter) {
      whole.shard = i;
      whole.shards = static_cast<uint32_t>(op.devices.size());
    }
  }
  return std::nullopt;
}

Verdict ValueRules::Gather(const Op& op) {
  ValueInfo first = In(op, 0);
  for (size_t i = 1; i < op.in.size(); ++i) {
    const ValueInfo& part = In(op, i);
    if (part.meaning == first.meaning && part.block == first.block) continue;
    return Broken("meaning", fmt::format("all_gather takes parts of one value, got {} and {}",
                                         NameOf(op.in[0], first), NameOf(op.in[i], part)));
  }
  Verdict broken = first.meaning == Meaning::kLogits
                       ? Covers(op, op.in, graph_.at(first.block).units)
                       : GatherShards(op);
  if (broken) return broken;
  for (DeviceId device : op.devices) Define(op, device, first.meaning, first.block);
  return std::nullopt;
}

Verdict ValueRules::GatherShards(const Op& op) {
  auto ranks = static_cast<uint32_t>(op.devices.size());
  for (uint32_t i = 0; i < ranks; ++i) {
    const ValueInfo& part = In(op, i);
    if (!part.full && !options_.Off(RuleOff::kCoverageMissing)) {
      return Broken("coverage",
                    fmt::format("all_gather joins tokens, and {} is a partial: reduce it",
                                NameOf(op.in[i], part)));
    }
    if ((part.shards != ranks || part.shard != i) && !options_.Off(RuleOff::kTokens)) {
      return Broken("tokens", fmt::format("all_gather takes token shard {} of {} from its rank {}, "
                                          "got {}",
                                          i, ranks, i, NameOf(op.in[i], part)));
    }
  }
  return std::nullopt;
}

Verdict ValueRules::Finish() const {
  for (uint32_t m = 0; m < program_.microbatches; ++m) {
    if (!sampled_[m]) return Broken("completeness", fmt::format("m{} is never sampled", m));
  }
  return std::nullopt;
}

}  // namespace tandem
