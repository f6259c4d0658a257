// A step on devices that work on their own time. See executor.h.
#include <fmt/format.h>

#include <algorithm>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/plan/text.h"
#include "engine/run/executor.h"

namespace tandem {

void Executor::RunQueued(size_t program_index, bool laid_anew, LogitsSink& sink) {
  pending_.clear();
  sampled_.clear();
  try {
    order_->BeginStep(program_index, laid_, layouts_[program_index].layout, !laid_anew);
    AskForSteps(sink);
    TakeLogits(sink);
    order_->FinishStep();
    TakeFailures();
  } catch (...) {
    // Nothing of this step may still run when the next one begins; what went wrong first is told.
    try {
      order_->FinishStep();
    } catch (const Error&) {
    }
    // Kernels that gave up in it are forgotten with the step.
    for (const auto& transport : transports_) transport->TakeFailure();
    throw;
  }
  ReadOverlap();
}

void Executor::TakeFailures() {
  const CompiledProgram& compiled = programs_[trace_.program_index];
  for (const auto& transport : transports_) {
    const std::optional<TransportFailure> failure = transport->TakeFailure();
    if (!failure) continue;
    Check(failure->op < compiled.ops.size(), "executor: a failure names an op of the step");
    Fail(ErrorCode::kDevice, fmt::format("{} (in op {} of the step: {})", failure->what,
                                         failure->op, FormatOp(*compiled.ops[failure->op].op)));
  }
}

void Executor::AskForSteps(LogitsSink& sink) {
  const CompiledProgram& compiled = programs_[trace_.program_index];
  for (uint32_t i = 0; i < compiled.ops.size(); ++i) {
    const Op& op = *compiled.ops[i].op;
    try {
      // An op without work keeps its place in the order.
      order_->BeginOp(i);
      if (DoesWork(graph_, op, *compiled.info, trace_.shape)) Dispatch(i, sink);
      order_->EndOp(i);
    } catch (const Error& error) {
      Fail(error.code(),
           fmt::format("{} (asked for op {} of the step: {})", error.what(), i, FormatOp(op)));
    }
  }
}

void Executor::SendLogits(uint32_t index, LogitsSink& sink) {
  const CompiledOp& op = programs_[trace_.program_index].ops[index];
  const Microbatch& mb = microbatches_[op.op->microbatch];
  const ValueMemory& logits = Value(op.op->in[0]);
  const uint64_t row_bytes = uint64_t{logits.width} * sizeof(float);
  const uint64_t room = host_logits_.size() / row_bytes;
  uint64_t at = pending_.empty() ? 0 : pending_.back().at + pending_.back().count;
  DeviceQueue& queue = *QueueOf(op, 0);
  for (uint64_t done = 0; done < mb.sampled.size();) {
    if (at == room) {
      queue.Finish();
      TakeLogits(sink);
      at = 0;
    }
    const uint64_t count = std::min<uint64_t>(room - at, mb.sampled.size() - done);
    queue.Copy(
        QueueCopy{.to = host_logits_.data() + at * row_bytes,
                  .from = reinterpret_cast<const std::byte*>(logits.data + done * logits.width),
                  .row_bytes = count * row_bytes});
    // What crosses here is the logits: ids are chosen on the host's side.
    ledger_.Book(op.op->devices[0], kHost, op.transport->path(), Bytes{count * row_bytes});
    pending_.push_back(PendingLogits{index, done, count, at});
    done += count;
    at += count;
  }
}

void Executor::TakeLogits(LogitsSink& sink) {
  for (const PendingLogits& part : pending_) {
    const Op& op = *programs_[trace_.program_index].ops[part.op].op;
    order_->FinishOp(part.op);
    const Microbatch& mb = microbatches_[op.microbatch];
    const uint64_t width = graph_.config.vocab;
    sink.OnLogits(std::span(mb.sampled).subspan(part.first, part.count),
                  host_logits_.as<float>() + part.at * width,
                  std::span(host_ids_.as<int32_t>(), part.count));
    sampled_.emplace_back(part.op, order_->HostNow());
  }
  pending_.clear();
}

void Executor::ReadOverlap() {
  OverlapTrace& overlap = trace_.overlap;
  order_->ReadTimes(overlap);
  // The time that the host takes to choose ids is the op's.
  for (const auto& [op, chosen] : sampled_) {
    OpSpan& times = overlap.ops[op];
    const auto device = DeviceIndex(programs_[trace_.program_index].ops[op].op->devices[0]);
    overlap.devices[device].launch.push_back({times.end, chosen});
    times.end = std::max(times.end, chosen);
  }
  trace_.length = Nanos{0};
  for (size_t i = 0; i < overlap.ops.size(); ++i) {
    trace_.op_start[i] = overlap.ops[i].begin;
    trace_.op_time[i] = overlap.ops[i].end - overlap.ops[i].begin;
    trace_.length = std::max(trace_.length, overlap.ops[i].end);
  }
}

}  // namespace tandem
