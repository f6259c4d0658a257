// Ops of the plan that run as one; the plan keeps them all, and so do the trace, the timeline and
// the ledger. See executor.h.
//
// An ADD and the NORM of its sum that comes next on the same device: a pass over the rows less, and
// a launch less. Their time is shared in proportion to the memory traffic that cost.h gives each.
//
// An ALL_REDUCE and, on every device, the ADD that alone wants its result, with the NORM where the
// two run as one: where the transport takes them along (direct_collectives.h). It then runs in the
// place of the ALL_REDUCE and waits for what any of them waits for. Of its time the ADDs and NORMs
// are told what their memory traffic takes at the device's roof, and the ALL_REDUCE the rest: it is
// a link's time, which movements' memory traffic says nothing of.
#include <algorithm>
#include <cmath>
#include <functional>

#include "engine/base/check.h"
#include "engine/run/executor.h"

namespace tandem {
namespace {

// Whether n floats at a and at b are the same, or have none in common.
bool WholeOrApart(const float* a, const float* b, uint64_t n) {
  const std::less<> before;
  return a == b || !before(a, b + n) || !before(b, a + n);
}

}  // namespace

// What runs together in the step at hand: the same for steps of the same shape.
void Executor::PairOps() {
  const CompiledProgram& compiled = programs_[trace_.program_index];
  run_with_.assign(compiled.ops.size(), kNoOp);
  for (uint32_t i = 0; i < compiled.ops.size(); ++i) {
    const CompiledOp& add = compiled.ops[i];
    if (add.next_norm == kNoOp) continue;
    const CompiledOp& norm = compiled.ops[add.next_norm];
    if (DoesWork(graph_, *add.op, *compiled.info, trace_.shape) && MayRunWith(add, norm)) {
      run_with_[add.next_norm] = i;
    }
  }
  for (uint32_t i = 0; i < compiled.ops.size(); ++i) {
    if (!MayRunWithReduce(i)) continue;
    for (uint32_t add : compiled.ops[i].next_adds) run_with_[add] = i;
  }
}

// Values share an arena, where the norm may lie on what the ADD reads last: row upon row that is
// well, but not with rows shifted.
bool Executor::MayRunWith(const CompiledOp& add, const CompiledOp& norm) const {
  const Op& op = *add.op;
  const ValueMemory& out = values_[norm.op->out[0]];
  const uint64_t n = out.elems();
  return values_[op.out[0]].elems() == n && WholeOrApart(values_[op.in[0]].data, out.data, n) &&
         WholeOrApart(values_[op.in[1]].data, out.data, n);
}

void Executor::RunAddNorm(uint32_t add, uint32_t norm) {
  const CompiledProgram& compiled = programs_[trace_.program_index];
  const CompiledOp& op = compiled.ops[add];
  const CompiledOp& after = compiled.ops[norm];
  const ValueMemory& sum = Value(op.op->out[0]);
  OpsOf(op).AddNorm(Value(op.op->in[0]).data, Value(op.op->in[1]).data, after.norm,
                    graph_.config.norm_eps, sum.rows, graph_.config.hidden, sum.data,
                    Value(after.op->out[0]).data);
}

void Executor::AskForAddNorm(uint32_t add, uint32_t norm) {
  order_->BeginOp(add);
  order_->BeginOp(norm);
  RunAddNorm(add, norm);
  order_->EndOp(add);
  order_->EndOp(norm);
}

// --- with the ALL_REDUCE ---

bool Executor::fuses_collectives() const {
  const auto fuses = [&](const CompiledOp& op) {
    if (op.next_adds.empty() || op.transport->direct() == nullptr) return false;
    const DirectRowsShape row{
        .rows = 1, .width = graph_.config.hidden, .eps = graph_.config.norm_eps};
    return op.transport->direct()->TakesRows(setup_.plan->wire, row, op.op->devices.size());
  };
  return setup_.gpu.fuse_collectives && order_ != nullptr &&
         std::ranges::any_of(programs_, [&](const CompiledProgram& compiled) {
           return compiled.program->kind == ProgramKind::kDecode &&
                  std::ranges::any_of(compiled.ops, fuses);
         });
}

DirectRowsShape Executor::RowsShapeOf(const CompiledOp& reduce) const {
  const ValueMemory& value = values_[reduce.op->in[0]];
  return DirectRowsShape{.rows = value.rows, .width = value.width, .eps = graph_.config.norm_eps};
}

// Whether the transport takes the ADDs along, and what is written lies on what is read row upon
// row, if at all: one kernel reads the partial and the residual, and writes the sum and its norm.
bool Executor::MayRunWithReduce(uint32_t reduce) const {
  const CompiledProgram& compiled = programs_[trace_.program_index];
  const CompiledOp& op = compiled.ops[reduce];
  if (!setup_.gpu.fuse_collectives || order_ == nullptr || op.next_adds.empty() ||
      !DoesWork(graph_, *op.op, *compiled.info, trace_.shape)) {
    return false;
  }
  const DirectRowsShape shape = RowsShapeOf(op);
  const DirectCollectives* direct = op.transport->direct();
  if (direct == nullptr || !direct->TakesRows(setup_.plan->wire, shape, op.op->devices.size())) {
    return false;
  }
  for (size_t r = 0; r < op.next_adds.size(); ++r) {
    const uint32_t add = op.next_adds[r];
    const Op& adds = *compiled.ops[add].op;
    const float* partial = values_[op.op->in[r]].data;
    const float* residual = values_[adds.in[adds.in[0] == op.op->out[r] ? 1 : 0]].data;
    const auto fits = [&](ValueId made) {
      const ValueMemory& value = values_[made];
      return value.elems() == shape.elems() && WholeOrApart(value.data, partial, value.elems()) &&
             WholeOrApart(value.data, residual, value.elems());
    };
    const uint32_t norm = NormOf(add);
    if (!fits(adds.out[0]) || (norm != kNoOp && !fits(compiled.ops[norm].op->out[0]))) return false;
  }
  return true;
}

void Executor::ReduceWithAdds(uint32_t reduce) {
  const CompiledProgram& compiled = programs_[trace_.program_index];
  const CompiledOp& op = compiled.ops[reduce];
  ends_.clear();
  rows_.clear();
  for (size_t r = 0; r < op.next_adds.size(); ++r) {
    const uint32_t add = op.next_adds[r], norm = NormOf(add);
    const Op& adds = *compiled.ops[add].op;
    const CompiledOp* after = norm == kNoOp ? nullptr : &compiled.ops[norm];
    ends_.push_back(DirectEnd{
        .device = op.op->devices[r], .in = Value(op.op->in[r]).data, .queue = QueueOf(op, r)});
    rows_.push_back(DirectRows{.residual = Value(adds.in[adds.in[0] == op.op->out[r] ? 1 : 0]).data,
                               .sum = Value(adds.out[0]).data,
                               .weights = after == nullptr ? nullptr : after->norm,
                               .norm = after == nullptr ? nullptr : Value(after->op->out[0]).data});
  }
  BeginBooking(reduce);
  op.transport->direct()->AllReduceRows(setup_.plan->wire, ends_, rows_, RowsShapeOf(op), ledger_);
}

void Executor::AskForReduce(uint32_t reduce) {
  const std::span<const uint32_t> adds = AddsOf(reduce);
  const auto with_norms = [&](const auto& visit) {
    for (uint32_t add : adds) {
      visit(add);
      if (NormOf(add) != kNoOp) visit(NormOf(add));
    }
  };
  order_->BeginOp(reduce);
  with_norms([&](uint32_t op) { order_->BeginWith(reduce, op); });
  ReduceWithAdds(reduce);
  order_->EndOp(reduce);
  // Their own queues go on behind it.
  with_norms([&](uint32_t op) {
    order_->BeginOp(op);
    order_->EndOp(op);
  });
}

// --- times ---

double Executor::NormShare(uint32_t add, uint32_t norm) const {
  const CompiledProgram& compiled = programs_[trace_.program_index];
  const auto bytes = [&](uint32_t index) {
    const Op& op = *compiled.ops[index].op;
    return CostOf(graph_, op, ShapeFor(op, trace_.shape)).memory_bytes;
  };
  const double own = bytes(norm), all = own + bytes(add);
  return all > 0.0 ? own / all : 0.0;
}

Nanos Executor::RoofTime(uint32_t index) const {
  const Op& op = *programs_[trace_.program_index].ops[index].op;
  const DeviceSpec& device = setup_.rig->devices[DeviceIndex(op.devices[0])];
  const double seconds = RooflineSeconds(CostOf(graph_, op, ShapeFor(op, trace_.shape)), device);
  return std::isfinite(seconds) ? NanosFromSeconds(seconds) : Nanos{0};
}

void Executor::ShareOverlap() {
  for (uint32_t norm = 0; norm < run_with_.size(); ++norm) {
    if (!AddsOf(norm).empty()) ShareReduce(norm);
    const uint32_t add = run_with_[norm];
    // An ADD that runs with an ALL_REDUCE, or the NORM of one.
    if (add == kNoOp || NormOf(add) != norm || run_with_[add] != kNoOp) continue;
    OpSpan& first = trace_.overlap.ops[add];
    OpSpan& second = trace_.overlap.ops[norm];
    const Nanos length = second.end - first.begin;
    const auto part =
        static_cast<int64_t>(static_cast<double>(length.value) * NormShare(add, norm));
    first.end = second.begin = second.end - Nanos{part};
  }
}

void Executor::ShareReduce(uint32_t reduce) {
  OpSpan& whole = trace_.overlap.ops[reduce];
  Nanos reduced = whole.begin;
  for (uint32_t add : AddsOf(reduce)) {
    const uint32_t norm = NormOf(add);
    OpSpan& adding = trace_.overlap.ops[add];
    const Nanos end = norm == kNoOp ? adding.end : trace_.overlap.ops[norm].end;
    const Nanos normed = norm == kNoOp ? Nanos{0} : RoofTime(norm);
    adding.end = std::max(whole.begin, end - normed);
    adding.begin = std::max(whole.begin, adding.end - RoofTime(add));
    if (norm != kNoOp) trace_.overlap.ops[norm].begin = adding.end;
    reduced = std::max(reduced, adding.begin);
    const Op& op = *programs_[trace_.program_index].ops[add].op;
    trace_.overlap.devices[DeviceIndex(op.devices[0])].compute.push_back({adding.begin, end});
  }
  whole.end = reduced;
}

}  // namespace tandem
