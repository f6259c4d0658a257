// An ADD and the NORM of its sum that comes next on the same device, run as one: a pass over the
// rows less, and a launch less. The plan keeps both; so do the trace and the timeline, where the
// time of the two is shared in proportion to the memory traffic that cost.h gives each. See
// executor.h.
#include <functional>

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
void Executor::PairNorms() {
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

double Executor::NormShare(uint32_t add, uint32_t norm) const {
  const CompiledProgram& compiled = programs_[trace_.program_index];
  const auto bytes = [&](uint32_t index) {
    const Op& op = *compiled.ops[index].op;
    return CostOf(graph_, op, ShapeFor(op, trace_.shape)).memory_bytes;
  };
  const double own = bytes(norm), all = own + bytes(add);
  return all > 0.0 ? own / all : 0.0;
}

void Executor::ShareOverlap() {
  for (uint32_t norm = 0; norm < run_with_.size(); ++norm) {
    const uint32_t add = run_with_[norm];
    if (add == kNoOp) continue;
    OpSpan& first = trace_.overlap.ops[add];
    OpSpan& second = trace_.overlap.ops[norm];
    const Nanos length = second.end - first.begin;
    const auto part =
        static_cast<int64_t>(static_cast<double>(length.value) * NormShare(add, norm));
    first.end = second.begin = second.end - Nanos{part};
  }
}

}  // namespace tandem
