#include "engine/run/step_order.h"

#include <algorithm>
#include <chrono>
#include <exception>

#include "engine/base/check.h"

namespace tandem {
namespace {

int64_t SteadyNow() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

bool Overlap(const LaidValue& a, uint64_t a_offset, const LaidValue& b, uint64_t b_offset) {
  return a.device == b.device && a_offset < b_offset + b.bytes && b_offset < a_offset + a.bytes;
}

// Whether work may be under way in such queues when a step ends: weights for the next one.
bool GoesOn(QueueRole role) { return role == QueueRole::kCopyIn || role == QueueRole::kFill; }

}  // namespace

QueueRole RoleOf(const Op& op, size_t index) {
  if (IsCompute(op.kind)) return QueueRole::kCompute;
  // Movements of activations share one scratch a device.
  if (op.kind != OpKind::kFetch && op.kind != OpKind::kKvMove) return QueueRole::kComm;
  return index == 0 ? QueueRole::kCopyOut : QueueRole::kCopyIn;
}

StepOrder::StepOrder(const BlockGraph& graph, std::span<const CompiledProgram> programs,
                     std::span<const std::unique_ptr<Device>> devices)
    : devices_(devices), begun_(devices.size()) {
  for (const auto& device : devices_) {
    Check(device->works_alone(), "step order: every device has queues");
    begin_.push_back(device->queue(QueueRole::kCompute)->MakeEvent());
  }
  programs_.resize(programs.size());
  for (size_t i = 0; i < programs.size(); ++i) {
    programs_[i].compiled = &programs[i];
    MakeParts(graph, programs_[i]);
  }
}

StepOrder::~StepOrder() = default;

DeviceQueue* StepOrder::QueueOf(const Op& op, size_t index) const {
  const DeviceId id = op.devices[index];
  return id.IsHost() ? nullptr : devices_[static_cast<size_t>(id.value)]->queue(RoleOf(op, index));
}

DeviceQueue& StepOrder::Queue(const Part& part) const {
  return *devices_[part.device]->queue(part.role);
}

std::span<StepOrder::Part> StepOrder::PartsOf(uint32_t op) {
  const uint32_t first = current_->first_part[op];
  return std::span(current_->parts).subspan(first, current_->first_part[op + 1] - first);
}

void StepOrder::MakeParts(const BlockGraph& graph, ProgramOrder& order) {
  const Program& program = *order.compiled->program;
  const ProgramInfo& info = *order.compiled->info;
  std::vector<uint32_t> last(devices_.size() * kQueueRoles, kNone);
  for (uint32_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    order.first_part.push_back(static_cast<uint32_t>(order.parts.size()));
    for (size_t d = 0; d < op.devices.size(); ++d) {
      if (op.devices[d].IsHost()) continue;
      Part part{
          .op = i, .device = static_cast<uint32_t>(op.devices[d].value), .role = RoleOf(op, d)};
      part.done = Queue(part).MakeEvent();
      uint32_t& before = last[QueueIndex(part)];
      part.before = before;
      before = static_cast<uint32_t>(order.parts.size());
      order.parts.push_back(std::move(part));
    }
  }
  order.first_part.push_back(static_cast<uint32_t>(order.parts.size()));
  for (uint32_t p : last) {
    if (p != kNone) order.parts[p].is_last = true;
  }

  // A part depends on the other op's part on its own device, or on all of them where it has none.
  const auto dependencies = DependenciesOf(graph, program, info);
  for (Part& part : order.parts) {
    for (const Dependency& dependency : dependencies[part.op]) {
      const uint32_t first = order.first_part[dependency.op];
      const uint32_t last_part = order.first_part[dependency.op + 1];
      const auto here = [&](uint32_t p) { return order.parts[p].device == part.device; };
      bool shared = false;
      for (uint32_t p = first; p < last_part; ++p) shared = shared || here(p);
      for (uint32_t p = first; p < last_part; ++p) {
        if (!shared || here(p)) part.direct.push_back(p);
      }
    }
  }

  order.users.resize(info.values.size());
  const auto use = [&](ValueId id, uint32_t op) {
    const auto device = static_cast<uint32_t>(info.values[id].device.value);
    for (uint32_t p = order.first_part[op]; p < order.first_part[op + 1]; ++p) {
      if (order.parts[p].device == device) order.users[id].push_back(p);
    }
  };
  for (uint32_t i = 0; i < program.ops.size(); ++i) {
    for (ValueId id : program.ops[i].in) use(id, i);
    for (ValueId id : program.ops[i].out) use(id, i);
  }
}

// Each part waits for the last part of every other queue that it depends on, unless its queue has
// waited for that one, or a later one of the same queue, before.
void StepOrder::FindWaits(ProgramOrder& order, std::span<const LaidValue> laid,
                          const ValueLayout& layout) {
  const Program& program = *order.compiled->program;
  std::vector<std::vector<uint32_t>> needed(order.parts.size());
  for (size_t p = 0; p < order.parts.size(); ++p) needed[p] = order.parts[p].direct;
  for (uint32_t i = 0; i < program.ops.size(); ++i) {
    for (ValueId made : program.ops[i].out) {
      if (laid[made].bytes == 0) continue;
      for (ValueId old = 0; old < laid.size(); ++old) {
        if (laid[old].bytes == 0 || laid[old].last_use >= i ||
            !Overlap(laid[old], layout.offsets[old], laid[made], layout.offsets[made])) {
          continue;
        }
        for (uint32_t p = order.first_part[i]; p < order.first_part[i + 1]; ++p) {
          if (order.parts[p].device != laid[made].device) continue;
          needed[p].insert(needed[p].end(), order.users[old].begin(), order.users[old].end());
        }
      }
    }
  }
  const size_t n_queues = devices_.size() * kQueueRoles;
  std::vector<uint32_t> waited(n_queues * n_queues, kNone);  // (waiting queue, other queue)
  std::vector<uint32_t> latest(n_queues);
  for (size_t p = 0; p < order.parts.size(); ++p) {
    Part& part = order.parts[p];
    const size_t own = QueueIndex(part);
    std::fill(latest.begin(), latest.end(), kNone);
    for (uint32_t other : needed[p]) {
      uint32_t& seen = latest[QueueIndex(order.parts[other])];
      if (seen == kNone || other > seen) seen = other;
    }
    part.waits.clear();
    for (size_t queue = 0; queue < n_queues; ++queue) {
      uint32_t& before = waited[own * n_queues + queue];
      if (queue == own || latest[queue] == kNone) continue;
      if (before != kNone && before >= latest[queue]) continue;
      before = latest[queue];
      part.waits.push_back(latest[queue]);
    }
  }
}

void StepOrder::BeginStep(size_t program, std::span<const LaidValue> laid,
                          const ValueLayout& layout, bool same) {
  current_ = &programs_[program];
  if (!same) FindWaits(*current_, laid, layout);
  origin_ns_ = SteadyNow();
  for (size_t d = 0; d < devices_.size(); ++d) {
    devices_[d]->queue(QueueRole::kCompute)->Mark(*begin_[d]);
    begun_[d] = HostNow();
  }
}

void StepOrder::BeginOp(uint32_t op) {
  for (const Part& part : PartsOf(op)) {
    for (uint32_t other : part.waits) Queue(part).WaitFor(*current_->parts[other].done);
  }
}

void StepOrder::BeginWith(uint32_t op, uint32_t later) {
  for (const Part& part : PartsOf(later)) {
    const auto carrier = std::ranges::find(PartsOf(op), part.device, &Part::device);
    Check(carrier != PartsOf(op).end(), "step order: an op of a device that the other has");
    DeviceQueue& queue = Queue(*carrier);
    const auto follow = [&](uint32_t p) {
      const Part& other = current_->parts[p];
      // What is asked after `op` is its own work.
      if (other.op < op && &Queue(other) != &queue) queue.WaitFor(*other.done);
    };
    // What the parts before it in its queue waited for is behind the last of them.
    if (part.before != kNone) follow(part.before);
    for (uint32_t other : part.waits) follow(other);
  }
}

void StepOrder::EndOp(uint32_t op) {
  for (const Part& part : PartsOf(op)) Queue(part).Mark(*part.done);
}

void StepOrder::FinishOp(uint32_t op) {
  for (const Part& part : PartsOf(op)) part.done->Finish();
}

void StepOrder::PutBehind(DeviceQueue& queue, uint32_t op) {
  for (const Part& part : PartsOf(op)) {
    if (&Queue(part) != &queue) queue.WaitFor(*part.done);
  }
}

void StepOrder::FinishStep() {
  // Every transport joins its work into the queues of its op, so the last marks stand for all.
  for (const Part& part : current_->parts) {
    if (part.is_last && GoesOn(part.role)) part.done->Finish();
  }
  FinishQueues([](QueueRole role) { return !GoesOn(role); });
}

void StepOrder::Drain() {
  FinishQueues([](QueueRole) { return true; });
}

// All that `which` picks, whatever goes wrong; then what went wrong first is told.
void StepOrder::FinishQueues(FunctionRef<bool(QueueRole)> which) {
  std::exception_ptr first;
  for (const auto& device : devices_) {
    for (size_t r = 0; r < kQueueRoles; ++r) {
      const auto role = static_cast<QueueRole>(r);
      if (!which(role)) continue;
      try {
        device->queue(role)->Finish();
      } catch (...) {
        if (first == nullptr) first = std::current_exception();
      }
    }
  }
  if (first != nullptr) std::rethrow_exception(first);
}

Nanos StepOrder::HostNow() const { return Nanos{SteadyNow() - origin_ns_}; }

void StepOrder::ReadTimes(OverlapTrace& trace) const {
  const ProgramOrder& order = *current_;
  const size_t n_ops = order.first_part.size() - 1;
  std::vector<Nanos> end(order.parts.size());
  for (size_t p = 0; p < order.parts.size(); ++p) {
    const Part& part = order.parts[p];
    // Streams' clocks tick apart by a little.
    end[p] = begun_[part.device] + std::max(part.done->Since(*begin_[part.device]), Nanos{0});
  }
  trace.ops.assign(n_ops, OpSpan{});
  trace.devices.assign(devices_.size(), DeviceIntervals{});
  for (size_t i = 0; i < n_ops; ++i) {
    OpSpan& times = trace.ops[i];
    for (uint32_t p = order.first_part[i]; p < order.first_part[i + 1]; ++p) {
      const Part& part = order.parts[p];
      Nanos ready = part.before == kNone ? begun_[part.device] : end[part.before];
      for (uint32_t other : part.waits) ready = std::max(ready, end[other]);
      times.begin = std::max(times.begin, ready);
      times.end = std::max(times.end, end[p]);
    }
    times.begin = std::min(times.begin, times.end);
    const bool compute = IsCompute(order.compiled->program->ops[i].kind);
    for (uint32_t p = order.first_part[i]; p < order.first_part[i + 1]; ++p) {
      const Part& part = order.parts[p];
      DeviceIntervals& device = trace.devices[part.device];
      const Nanos free = part.before == kNone ? begun_[part.device] : end[part.before];
      device.wait.push_back({free, times.begin});
      (compute ? device.compute : device.wire).push_back({times.begin, end[p]});
    }
  }
}

}  // namespace tandem
