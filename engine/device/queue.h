// Work that a device does on its own time: an ordered queue of it, and marks in the queue that
// other queues, or the host, wait for. A CUDA stream and its events, say. Devices whose calls are
// done when they return (the CPU's) have no queues.
//
// Queues belong to their device, which outlives them. One thread, the executor's.
//
//   compute.Mark(*done);          // after everything asked of `compute` so far
//   comm.WaitFor(*done);          // what is asked of `comm` from here on comes after that
//   comm.Finish();                // the host waits; throws what went wrong
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "engine/base/units.h"

namespace tandem {

// A mark's place. Made by a queue of the device it will be marked on; may be marked again and
// again.
class DeviceEvent {
 public:
  virtual ~DeviceEvent() = default;
  // From one mark to the next. Both have been passed, and are of one device.
  virtual Nanos Since(const DeviceEvent& earlier) const = 0;
  // The host waits until the mark is passed. Throws Error(kDevice).
  virtual void Finish() const = 0;
  // `tell` is called, on some thread, once the last mark asked for so far is passed; at once where
  // it has been. Under the rules of DeviceQueue::Call.
  virtual void WhenPassed(std::function<void()> tell) const = 0;
};

// `rows` runs of `row_bytes`, strides in bytes, between any two memories that the device can reach:
// its own, a peer's, or the host's where a device allocated it.
struct QueueCopy {
  std::byte* to = nullptr;
  uint64_t to_stride = 0;
  const std::byte* from = nullptr;
  uint64_t from_stride = 0;
  uint64_t row_bytes = 0;
  uint64_t rows = 1;
};

class DeviceQueue {
 public:
  virtual ~DeviceQueue() = default;
  // The stream that kernels are launched on; null where there are none.
  virtual void* native() const = 0;
  // Whether the host's processor does the work, which reaches no card's memory.
  virtual bool on_host() const { return false; }
  virtual std::unique_ptr<DeviceEvent> MakeEvent() = 0;
  // One that keeps order and tells no time, which is cheaper.
  virtual std::unique_ptr<DeviceEvent> MakeOrderEvent() { return MakeEvent(); }
  virtual void Mark(DeviceEvent& event) = 0;
  // Work asked for later comes after the event's last mark so far; an event never marked is passed.
  // Where the event is of a device of another kind, the call may itself wait for the mark.
  virtual void WaitFor(const DeviceEvent& event) = 0;
  virtual void Copy(const QueueCopy& copy) = 0;
  // Work of the host's in the queue's order, on a thread that is not the caller's: it begins when
  // the queue gets there, and what is asked of the queue later comes after it. `work` throws
  // nothing, asks no device for anything and waits for nothing: a driver may do such work of all
  // queues on one thread, in an order of its own.
  virtual void Call(std::function<void()> work) = 0;
  virtual void Finish() = 0;
};

// What a device keeps apart: work of one role is in order, roles run side by side. kFill is the
// host's copying into buffers that kCopyIn empties.
enum class QueueRole : uint8_t { kCompute, kCopyIn, kCopyOut, kComm, kFill };
inline constexpr size_t kQueueRoles = 5;

}  // namespace tandem
