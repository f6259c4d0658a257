// A step from end to end. Set-up is in executor_setup.cc, the ops in executor_ops.cc and
// executor_moves.cc.
#include "engine/run/executor.h"

#include <algorithm>
#include <chrono>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/plan/memory.h"

namespace tandem {
namespace {

int64_t SteadyNow() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

bool SameRows(std::span<const MicrobatchShape> a, std::span<const MicrobatchShape> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const MicrobatchShape& x, const MicrobatchShape& y) {
                      return x.rows == y.rows && x.sampled == y.sampled;
                    });
}

}  // namespace

Executor::~Executor() {
  if (order_ == nullptr) return;
  // Weights may be under way for a step that does not come.
  try {
    order_->Drain();
  } catch (const Error&) {
  }
}

size_t Executor::ProgramIndex(ProgramKind kind, uint32_t lane) const {
  for (size_t i = 0; i < programs_.size(); ++i) {
    if (programs_[i].program->kind == kind && programs_[i].program->lane == lane) return i;
  }
  Check(false, "executor: the plan has a program of each kind for each lane");
  return 0;
}

const StepShape& Executor::ShapeOf(const StepBatch& batch) {
  const size_t index = ProgramIndex(batch.kind, batch.lane);
  CutMicrobatches(*programs_[index].program, batch, microbatches_);
  trace_.shape.microbatches.clear();
  for (const Microbatch& mb : microbatches_) trace_.shape.microbatches.push_back(mb.shape);
  return trace_.shape;
}

void Executor::Run(const StepBatch& batch, LogitsSink& sink) {
  const size_t index = ProgramIndex(batch.kind, batch.lane);
  const CompiledProgram& compiled = programs_[index];
  trace_.program = compiled.program;
  trace_.info = compiled.info;
  trace_.program_index = index;
  ShapeOf(batch);
  const bool laid_anew = LayOut(index, trace_.shape.microbatches);
  BindValues();

  const size_t n_ops = compiled.ops.size();
  trace_.op_start.assign(n_ops, Nanos{0});
  trace_.op_time.assign(n_ops, Nanos{0});
  PairOps();
  ledger_.BeginStep(compiled.program->kind);
  if (order_ != nullptr) {
    RunQueued(index, batch, laid_anew, sink);
    return;
  }
  const int64_t origin = SteadyNow();
  int64_t now = 0;
  for (uint32_t i = 0; i < n_ops; ++i) {
    if (run_with_[i] != kNoOp) continue;
    trace_.op_start[i] = Nanos{now};
    if (!DoesWork(graph_, *compiled.ops[i].op, *compiled.info, trace_.shape)) continue;
    const uint32_t norm = NormOf(i);
    norm == kNoOp ? Dispatch(i, sink) : RunAddNorm(i, norm);
    const int64_t end = SteadyNow() - origin;
    trace_.op_time[i] = Nanos{end - now};
    if (norm != kNoOp) {
      const auto part = static_cast<int64_t>(static_cast<double>(end - now) * NormShare(i, norm));
      trace_.op_time[i] = Nanos{end - now - part};
      trace_.op_time[norm] = Nanos{part};
      trace_.op_start[norm] = Nanos{end - part};
    }
    now = end;
  }
  trace_.length = Nanos{now};
}

void Executor::Dispatch(uint32_t index, LogitsSink& sink) {
  const CompiledOp& op = programs_[trace_.program_index].ops[index];
  if (op.transport != nullptr) BeginBooking(index);
  switch (op.op->kind) {
    case OpKind::kRun:
      return RunBlock(op);
    case OpKind::kNorm:
      return RunNorm(op);
    case OpKind::kAdd:
      return RunAdd(op);
    case OpKind::kSample:
      return order_ == nullptr ? RunSample(op, sink) : SendLogits(index, sink);
    case OpKind::kAllReduce:
    case OpKind::kReduceScatter:
      return Reduce(op);
    case OpKind::kAllGather:
      return Gather(op);
    case OpKind::kTransfer:
      return Transfer(op);
    case OpKind::kFetch:
      return Fetch(op);
    case OpKind::kKvMove:
      return MoveKv(op);
    case OpKind::kReservedAllToAll:
    case OpKind::kReservedKvShard:
      break;
  }
  Check(false, "executor: an op kind that the verifier refuses");
}

void Executor::BeginBooking(uint32_t index) {
  const CompiledOp& op = programs_[trace_.program_index].ops[index];
  const OpKind kind = op.op->kind;
  const bool activations =
      kind != OpKind::kFetch && kind != OpKind::kKvMove && kind != OpKind::kSample;
  ledger_.BeginOp(index, kind, op.moves_block, activations ? setup_.plan->wire : WireType::kF32);
}

void Executor::SetValueShapes(size_t program_index, std::span<const MicrobatchShape> shapes) {
  const ProgramInfo& info = *programs_[program_index].info;
  values_.resize(info.values.size());
  laid_.resize(info.values.size());
  for (size_t id = 0; id < info.values.size(); ++id) {
    const ValueInfo& value = info.values[id];
    const MicrobatchShape& shape = shapes[value.microbatch];
    const bool logits = value.meaning == Meaning::kLogits;
    const bool sampled_only =
        logits || (value.meaning == Meaning::kN && value.block == graph_.head());
    ValueMemory& memory = values_[id];
    memory.rows = ShardRows(sampled_only ? shape.sampled : shape.rows, value.shard, value.shards);
    memory.width = logits ? graph_.at(value.block).ElemCount(value.units) : graph_.config.hidden;
    laid_[id] = LaidValue{.device = static_cast<uint32_t>(value.device.value),
                          .bytes = memory.elems() * sizeof(float),
                          .def_op = value.def_op,
                          .last_use = value.last_use};
  }
}

bool Executor::LayOut(size_t program_index, std::span<const MicrobatchShape> shapes) {
  CachedLayout& cached = layouts_[program_index];
  SetValueShapes(program_index, shapes);
  if (SameRows(cached.shapes, shapes)) return false;
  cached.shapes.assign(shapes.begin(), shapes.end());
  LayOutValues(laid_, static_cast<uint32_t>(devices_.size()), cached.layout);
  if (FitsArenas(cached.layout)) return true;
  // The tightest gap in turn may need a little more room than the largest step's values did.
  const std::vector<MicrobatchShape> largest =
      LargestShapes(*programs_[program_index].program, setup_.limits);
  const auto within = [shapes](const std::vector<MicrobatchShape>& most) {
    return std::equal(shapes.begin(), shapes.end(), most.begin(), most.end(),
                      [](const MicrobatchShape& a, const MicrobatchShape& b) {
                        return a.rows <= b.rows && a.sampled <= b.sampled;
                      });
  };
  const bool is_usual = within(largest);
  Check(is_usual || within(cached.scored_shapes),
        "executor: a step of no more rows than its arenas were made for");
  cached.layout = is_usual ? cached.largest : cached.scored;
  return true;
}

bool Executor::FitsArenas(const ValueLayout& layout) const {
  for (size_t d = 0; d < arenas_.size(); ++d) {
    if (layout.peak[d] > arenas_[d].size()) return false;
  }
  return true;
}

void Executor::BindValues() {
  const ValueLayout& layout = layouts_[trace_.program_index].layout;
  for (size_t id = 0; id < values_.size(); ++id) {
    std::byte* arena = arenas_[laid_[id].device].data();
    values_[id].data = reinterpret_cast<float*>(arena + layout.offsets[id]);
  }
}

}  // namespace tandem
