// A step on devices that work on their own time. See executor.h.
#include <fmt/format.h>

#include <algorithm>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/plan/text.h"
#include "engine/run/executor.h"

namespace tandem {

void Executor::RunQueued(size_t program_index, const StepBatch& batch, bool laid_anew,
                         LogitsSink& sink) {
  pending_.clear();
  sampled_.clear();
  SizeLanding(batch.top_k);
  bool asked = false;
  try {
    order_->BeginStep(program_index, laid_, layouts_[program_index].layout, !laid_anew);
    if (StepGraph* graph = GraphOfStep()) {
      asked = true;  // what is recorded has not begun
      RunGraph(*graph, sink);
    } else {
      AskForOps(0, static_cast<uint32_t>(programs_[program_index].ops.size()), sink);
      asked = true;
      FetchForNextStep(program_index);
      TakeLogits(sink);
      FinishStep();
    }
    TakeFailures(true);
  } catch (...) {
    // Nothing of this step may still run when the next one begins; what went wrong first is told.
    try {
      order_->Drain();
    } catch (const Error&) {
    }
    ahead_->Forget();
    // Where all was asked for, kernels that gave up came before whatever made no sense of the rest;
    // else they gave up for want of it. A replay is asked for as a whole.
    TakeFailures(asked || trace_.launch == LaunchMode::kGraph);
    throw;
  }
  ReadOverlap();
}

void Executor::TakeFailures(bool tell) {
  const CompiledProgram& compiled = programs_[trace_.program_index];
  std::optional<TransportFailure> first;
  for (const auto& transport : transports_) {
    std::optional<TransportFailure> failure = transport->TakeFailure();
    if (failure && !first) first = std::move(failure);
  }
  if (!first || !tell) return;
  Check(first->op < compiled.ops.size(), "executor: a failure names an op of the step");
  Fail(ErrorCode::kDevice, fmt::format("{} (in op {} of the step: {})", first->what, first->op,
                                       FormatOp(*compiled.ops[first->op].op)));
}

// A device tells of what went wrong when it is waited for, after more was asked of it.
template <typename Wait>
void Executor::Await(const Wait& wait) {
  try {
    wait();
  } catch (const Error& error) {
    const auto& ops = programs_[trace_.program_index].ops;
    Fail(
        error.code(),
        fmt::format(
            "{} (while ops 0 to {} of a {} step of {} rows ran, {} to {}; under compute-sanitizer, "
            "with --graphs off, the kernel is named)",
            error.what(), ops.size() - 1,
            trace_.program->kind == ProgramKind::kPrefill ? "prefill" : "decode",
            trace_.shape.rows(), FormatOp(*ops.front().op), FormatOp(*ops.back().op)));
  }
}

void Executor::FinishStep() {
  Await([this] { order_->FinishStep(); });
}

void Executor::AskForOps(uint32_t begin, uint32_t end, LogitsSink& sink) {
  const CompiledProgram& compiled = programs_[trace_.program_index];
  for (uint32_t i = begin; i < end; ++i) {
    const Op& op = *compiled.ops[i].op;
    if (run_with_[i] != kNoOp) continue;
    try {
      const uint32_t norm = NormOf(i);
      if (norm != kNoOp) {
        Check(norm < end, "executor: an ADD and its NORM are asked for together");
        AskForAddNorm(i, norm);
      } else if (!AddsOf(i).empty()) {
        AskForReduce(i);
      } else {
        // An op without work keeps its place in the order.
        order_->BeginOp(i);
        if (DoesWork(graph_, op, *compiled.info, trace_.shape)) Dispatch(i, sink);
        order_->EndOp(i);
      }
    } catch (const Error& error) {
      Fail(error.code(),
           fmt::format("{} (asked for op {} of the step: {})", error.what(), i, FormatOp(op)));
    }
  }
}

// What a sampled row sends to the host in this step.
void Executor::SizeLanding(uint32_t top_k) {
  const uint64_t row_bytes = uint64_t{graph_.config.vocab} * sizeof(float);
  const uint64_t entry_bytes = uint64_t{top_k} * sizeof(TopEntry);
  top_k_ = entry_bytes <= row_bytes ? top_k : 0;
  landing_row_ = top_k_ > 0 ? entry_bytes : row_bytes;
}

void Executor::FetchForNextStep(size_t program_index) {
  ahead_->Ask(program_index, *order_, [this](const CompiledOp& op) {
    // Booked when the next step takes it.
    TrafficLedger unbooked;
    CopyWeights(op, unbooked);
  });
}

void Executor::SendLogits(uint32_t index, LogitsSink& sink) {
  const CompiledOp& op = programs_[trace_.program_index].ops[index];
  const Microbatch& mb = microbatches_[op.op->microbatch];
  const ValueMemory& logits = Value(op.op->in[0]);
  const uint64_t room = host_logits_.size() / landing_row_;
  uint64_t at = pending_.empty() ? 0 : pending_.back().at + pending_.back().count;
  DeviceQueue& queue = *QueueOf(op, 0);
  for (uint64_t done = 0; done < mb.sampled.size();) {
    if (at == room) {
      queue.Finish();
      TakeLogits(sink);
      at = 0;
    }
    const uint64_t count = std::min<uint64_t>(room - at, mb.sampled.size() - done);
    if (top_k_ > 0) {
      SendTopK(op, done, count, at);
    } else {
      queue.Copy(
          QueueCopy{.to = host_logits_.data() + at * landing_row_,
                    .from = reinterpret_cast<const std::byte*>(logits.data + done * logits.width),
                    .row_bytes = count * landing_row_});
    }
    // What crosses here is what ids are chosen by, on the host's side.
    ledger_.Book(op.op->devices[0], kHost, op.transport->path(), Bytes{count * landing_row_});
    pending_.push_back(PendingLogits{index, done, count, at});
    done += count;
    at += count;
  }
}

// The largest logits of rows [first, first + count), to row `at` of host_logits_.
void Executor::SendTopK(const CompiledOp& op, uint64_t first, uint64_t count, uint64_t at) {
  const ValueMemory& logits = Value(op.op->in[0]);
  const ScratchRoom room = kernel_rooms_[DeviceIndex(op.op->devices[0])];
  Ops& ops = OpsOf(op);
  const auto bytes = [&](uint64_t rows) {
    return Scratch::Room(ops.TopKBytes(rows, logits.width, top_k_)) +
           Scratch::Room(rows * landing_row_);
  };
  const uint32_t most = RowsThatFit(static_cast<uint32_t>(count), room.size, bytes);
  for (uint64_t done = 0; done < count; done += most) {
    const uint64_t rows = std::min<uint64_t>(most, count - done);
    Scratch scratch(room);
    auto* work = scratch.Take<std::byte>(ops.TopKBytes(rows, logits.width, top_k_));
    auto* entries = scratch.Take<TopEntry>(rows * top_k_);
    ops.TopK(logits.data + (first + done) * logits.width, rows, logits.width, top_k_, work,
             entries);
    // In the same queue: the scratch is free for what comes after.
    QueueOf(op, 0)->Copy(QueueCopy{.to = host_logits_.data() + (at + done) * landing_row_,
                                   .from = reinterpret_cast<const std::byte*>(entries),
                                   .row_bytes = rows * landing_row_});
  }
}

void Executor::TakeLogits(LogitsSink& sink) {
  for (const PendingLogits& part : pending_) {
    const Op& op = *programs_[trace_.program_index].ops[part.op].op;
    // A replay has ended as a whole by now.
    if (trace_.launch == LaunchMode::kEager) {
      Await([&] { order_->FinishOp(part.op); });
    }
    const std::span<const SampledRow> rows =
        std::span(microbatches_[op.microbatch].sampled).subspan(part.first, part.count);
    const std::byte* landed = host_logits_.data() + part.at * landing_row_;
    const std::span ids(host_ids_.as<int32_t>(), part.count);
    if (top_k_ > 0) {
      sink.OnTopK(rows, reinterpret_cast<const TopEntry*>(landed), top_k_, ids);
    } else {
      sink.OnLogits(rows, reinterpret_cast<const float*>(landed), ids);
    }
    sampled_.emplace_back(part.op, order_->HostNow());
  }
  pending_.clear();
}

void Executor::ReadOverlap() {
  OverlapTrace& overlap = trace_.overlap;
  order_->ReadTimes(overlap);
  ahead_->ReadTimes(trace_.program_index, *order_, overlap);
  ShareOverlap();
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
