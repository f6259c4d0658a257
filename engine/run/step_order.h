// Keeps the ops of a step in order on devices that work on their own time: before an op's work is
// asked for, its queues are told to wait for what it depends on; after, the work's end is marked in
// each of them. The dependencies are those of engine/plan/dependencies.h, and besides, since values
// share an arena, whatever used the bytes that an op's results are about to take.
//
// An op that computes is in the compute queue of its device; a FETCH or KV_MOVE reads through the
// copy-out queue of its source and writes through the copy-in queue of its destination; other
// movements are in the comm queues. (A plan's own choice of queues is a matter of the schedule that
// prices it; here it would let two ops meet in one scratch.) Waits that follow from others are left
// out.
//
// The marks are also the clock: when each has been passed, so has the step, and ReadTimes says when
// each op began and ended.
//
// One thread, the executor's. Nothing is allocated from step to step of the same shape.
//
//   order.BeginStep(program, laid, layout);
//   for (each op) { order.BeginOp(i); ... order.EndOp(i); }
//   order.FinishStep(trace);
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/base/function_ref.h"
#include "engine/device/device.h"
#include "engine/plan/attribution.h"
#include "engine/plan/dependencies.h"
#include "engine/plan/value_layout.h"
#include "engine/run/compiled_program.h"

namespace tandem {

// The queue that an op's work on op.devices[index] goes to.
QueueRole RoleOf(const Op& op, size_t index);

// When an op ran, from the step's start. For a movement `begin` is when all its ends were ready:
// before the start, and negative, for a FETCH that was asked for ahead.
struct OpSpan {
  Nanos begin;
  Nanos end;
};

// What a step on such devices was: by op, and by device for attribution.
struct OverlapTrace {
  std::vector<OpSpan> ops;
  std::vector<DeviceIntervals> devices;
};

class StepOrder {
 public:
  // `devices` have queues. All outlive the order.
  StepOrder(const BlockGraph& graph, std::span<const CompiledProgram> programs,
            std::span<const std::unique_ptr<Device>> devices);
  ~StepOrder();

  // The queue of op.devices[index]; null of the host.
  DeviceQueue* QueueOf(const Op& op, size_t index) const;

  // `laid` and `layout` are of the step's values; `same` says that they are those of the program's
  // last step.
  void BeginStep(size_t program, std::span<const LaidValue> laid, const ValueLayout& layout,
                 bool same);
  void BeginOp(uint32_t op);
  // Between BeginOp and EndOp of `op`, whose work is that of `later` too, an op of one device that
  // comes after it in the list: what is asked of op's queue there comes after all that `later`
  // waits for. Nothing of that device's lies between the two but what `op` does as well.
  void BeginWith(uint32_t op, uint32_t later);
  void EndOp(uint32_t op);
  // The host waits for an op that has been asked for.
  void FinishOp(uint32_t op);
  // What is asked of `queue` from here on comes after an op that has been asked for.
  void PutBehind(DeviceQueue& queue, uint32_t op);
  // The host waits for the whole step. Throws Error(kDevice). After it nothing is under way but
  // what was put in copy-in and fill queues behind the step's own work (fetch_ahead.h).
  void FinishStep();
  // The host waits until every queue is empty, whatever it was asked. Throws Error(kDevice).
  void Drain();
  void ReadTimes(OverlapTrace& trace) const;
  // When a mark on the device was passed, on the same axis.
  Nanos TimeOf(uint32_t device, const DeviceEvent& mark) const {
    return begun_[device] + mark.Since(*begin_[device]);
  }
  // Since the step began, on the host's clock, which is that of the times too.
  Nanos HostNow() const;

 private:
  // An op's part in one queue, with the mark behind it.
  struct Part {
    uint32_t op = 0;
    uint32_t device = 0;
    QueueRole role = QueueRole::kCompute;
    std::unique_ptr<DeviceEvent> done;
    std::vector<uint32_t> waits;   // parts of other queues, for the layout at hand
    std::vector<uint32_t> direct;  // parts that it depends on, whatever the layout
    uint32_t before = kNone;       // the part before it in its queue
    bool is_last = false;          // of its queue in its program
  };
  struct ProgramOrder {
    const CompiledProgram* compiled = nullptr;
    std::vector<Part> parts;                   // in list order
    std::vector<uint32_t> first_part;          // by op, and the number of parts
    std::vector<std::vector<uint32_t>> users;  // of a value: parts on its device, in list order
  };
  static constexpr uint32_t kNone = UINT32_MAX;

  void MakeParts(const BlockGraph& graph, ProgramOrder& order);
  void FindWaits(ProgramOrder& order, std::span<const LaidValue> laid, const ValueLayout& layout);
  void FinishQueues(FunctionRef<bool(QueueRole)> which);
  DeviceQueue& Queue(const Part& part) const;
  static size_t QueueIndex(const Part& part) {
    return part.device * kQueueRoles + static_cast<size_t>(part.role);
  }
  std::span<Part> PartsOf(uint32_t op);

  std::span<const std::unique_ptr<Device>> devices_;
  std::vector<ProgramOrder> programs_;
  ProgramOrder* current_ = nullptr;
  std::vector<std::unique_ptr<DeviceEvent>> begin_;  // by device: the step's start
  std::vector<Nanos> begun_;                         // by device: when that was asked for
  int64_t origin_ns_ = 0;
};

}  // namespace tandem
