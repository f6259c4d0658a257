#include "engine/plan/fused_ops.h"

#include <algorithm>

#include "engine/plan/dependencies.h"

namespace tandem {
namespace {

// How often ops of the program read a value.
uint32_t UsesOf(const Program& program, ValueId value) {
  uint32_t uses = 0;
  for (const Op& op : program.ops) {
    uses += static_cast<uint32_t>(std::count(op.in.begin(), op.in.end(), value));
  }
  return uses;
}

// The ADD that is the next op of the device and the only one to want `value`, where nothing but
// other devices' compute ops lies between in the list.
uint32_t NextAdd(const Program& program, uint32_t reduce, DeviceId device, ValueId value) {
  for (uint32_t i = reduce + 1; i < program.ops.size(); ++i) {
    const Op& next = program.ops[i];
    if (IsCompute(next.kind) && next.devices[0] != device) continue;
    const bool is_add = next.kind == OpKind::kAdd && next.devices[0] == device &&
                        std::count(next.in.begin(), next.in.end(), value) == 1;
    return is_add && UsesOf(program, value) == 1 ? i : kNoOp;
  }
  return kNoOp;
}

}  // namespace

uint32_t NextNorm(const BlockGraph& graph, const Program& program, uint32_t add) {
  const Op& op = program.ops[add];
  for (uint32_t i = add + 1; i < program.ops.size(); ++i) {
    const Op& next = program.ops[i];
    if (IsCompute(next.kind) && next.devices[0] != op.devices[0]) continue;
    const bool is_norm = next.kind == OpKind::kNorm && next.devices[0] == op.devices[0] &&
                         next.in[0] == op.out[0] && next.block != graph.head();
    return is_norm ? i : kNoOp;
  }
  return kNoOp;
}

std::vector<uint32_t> NextAdds(const Program& program, uint32_t reduce) {
  const Op& op = program.ops[reduce];
  std::vector<uint32_t> adds;
  for (size_t r = 0; r < op.devices.size() && op.algorithm != Algorithm::kTwoShot; ++r) {
    const uint32_t add = NextAdd(program, reduce, op.devices[r], op.out[r]);
    if (add == kNoOp) return {};
    adds.push_back(add);
  }
  return adds;
}

bool TakesRowsAlong(PathKind path, WireType wire, uint64_t rows, uint64_t width) {
  const uint64_t most = path == PathKind::kP2p          ? kMostPeerWords
                        : path == PathKind::kHostStaged ? kMostHostWords
                                                        : 0;
  // Blocks of the wire that span rows would have scales of two.
  const bool whole = WireBytes(wire, rows * width) == WireBytes(wire, width) * rows;
  return rows > 0 && rows * width <= most && whole;
}

FusedOps::FusedOps(const BlockGraph& graph, const Plan& plan, const Program& program,
                   const ProgramInfo& info, bool collectives)
    : graph_(graph), plan_(plan), program_(program), info_(info) {
  next_norm_.assign(program.ops.size(), kNoOp);
  next_adds_.resize(program.ops.size());
  for (uint32_t i = 0; i < program.ops.size(); ++i) {
    const OpKind kind = program.ops[i].kind;
    if (kind == OpKind::kAdd) next_norm_[i] = NextNorm(graph, program, i);
    if (kind == OpKind::kAllReduce && collectives) next_adds_[i] = NextAdds(program, i);
  }
}

std::vector<uint32_t> FusedOps::Pairs(const StepShape& shape) const {
  std::vector<uint32_t> with(program_.ops.size(), kNoOp);
  for (uint32_t i = 0; i < program_.ops.size(); ++i) {
    if (next_norm_[i] == kNoOp || !DoesWork(graph_, program_.ops[i], info_, shape)) continue;
    with[next_norm_[i]] = i;
  }
  return with;
}

std::vector<uint32_t> FusedOps::In(const StepShape& shape, const Rig& rig) const {
  std::vector<uint32_t> with = Pairs(shape);
  for (uint32_t i = 0; i < program_.ops.size(); ++i) {
    if (!TakesAddsAlong(i, shape, rig)) continue;
    for (uint32_t add : next_adds_[i]) with[add] = i;
  }
  return with;
}

bool FusedOps::TakesAddsAlong(uint32_t reduce, const StepShape& shape, const Rig& rig) const {
  if (next_adds_[reduce].empty()) return false;
  const Op& op = program_.ops[reduce];
  // CPU devices have no such kernels, and those of GPUs are over all of these.
  uint64_t cards = 0;
  for (uint32_t d = 0; d < plan_.n_devices; ++d) {
    if (!rig.OnHost(DeviceId{static_cast<int32_t>(d)})) ++cards;
  }
  if (rig.HostPath() == PathKind::kLocal || op.devices.size() != cards) return false;
  const uint64_t width = graph_.config.hidden;
  const uint64_t n = ValueElements(graph_, info_.values[op.in[0]], ShapeFor(op, shape));
  return DoesWork(graph_, op, info_, shape) &&
         TakesRowsAlong(rig.ResolvePath(op.path), plan_.wire, n / width, width);
}

std::vector<double> TrafficShares(const Program& program, std::span<const uint32_t> runs_with) {
  std::vector<double> shares(program.ops.size(), 1.0);
  for (uint32_t i = 0; i < runs_with.size(); ++i) {
    const uint32_t with = runs_with[i];
    if (with == kNoOp) continue;
    if (program.ops[i].kind == OpKind::kAdd) {
      shares[i] = 1.0 / 3;
    } else if (runs_with[with] == kNoOp) {
      shares[i] = shares[with] = 4.0 / 5;
    } else {
      shares[i] = 1.0 / 2;
    }
  }
  return shares;
}

}  // namespace tandem
