// Devices for tests that work on their own time and let nobody look into their memory: what holds
// on them holds on GPUs.
//
// Memory is mapped without any permission and opened only for the length of one item of work, and
// only that of the devices which the item may touch: anything else that reads or writes it dies on
// the spot. Work is put in queues and run late: not before the host waits for something, and then
// in an order that a seed picks among those that the waits between queues allow: queues are ranked,
// and the highest that can go on does. So a missing wait reads what is not there yet, or is gone.
//
// Kernels, transports and link arithmetic are the CPU's and the production ones; only when they run
// differs. Times are the fake's own: an item of work takes kItemTime, and a queue that waits stands
// still. One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/device/device.h"
#include "engine/run/backend.h"
#include "engine/run/engine.h"

namespace tandem::testing {

class FakeQueue;
class FakeRecorder;
class FakeRecording;

class FakeMachine {
 public:
  explicit FakeMachine(uint64_t seed);
  ~FakeMachine();

  static constexpr Nanos kItemTime{1000};

  // Devices, kernels and transports over this machine, in place of the CPU's.
  std::unique_ptr<Backend> MakeBackend(const BackendSetup& setup);
  // `on_host`: with the manners of the host's processor beside cards
  // (engine/device/cpu/cpu_queue.h).
  std::unique_ptr<Device> MakeDevice(DeviceId id, Bytes capacity, bool on_host = false);

  // Keeps what queues are asked for; replays it late, in any order that its waits allow.
  QueueRecorder& recorder();
  bool recording() const { return recording_ != nullptr; }
  uint64_t replays() const { return replays_; }

  uint64_t items_run() const { return items_run_; }
  // The item that fails, counted down from here, and every one after it; negative: none.
  void FailIn(int64_t items) { fail_in_ = items; }
  bool lost() const { return failed_; }
  // From here on attention asks its device for so many bytes for each position of the longest
  // sequence so far, as ops do whose tables grow with it.
  void HoldTables(uint64_t bytes_a_position) { table_bytes_ = bytes_a_position; }
  uint64_t table_bytes() const { return table_bytes_; }

 private:
  friend class FakeQueue;
  friend class FakeEvent;
  friend class FakeRecorder;
  friend class FakeRecording;
  void Add(FakeQueue* queue);
  void Remove(FakeQueue* queue);
  // Runs queues by rank until `done` holds. Aborts when none can go on.
  void RunUntil(const std::function<bool()>& done);
  void CountItem();

  uint64_t seed_;
  std::vector<FakeQueue*> queues_;  // by rank
  std::unique_ptr<FakeRecorder> recorder_;
  FakeRecording* recording_ = nullptr;  // where what is asked goes
  uint64_t replays_ = 0;
  uint64_t items_run_ = 0;
  int64_t fail_in_ = -1;
  bool failed_ = false;
  uint64_t table_bytes_ = 0;
};

// A device's memory: without permission but while an Opening lives.
class GuardedMemory {
 public:
  explicit GuardedMemory(size_t size);
  ~GuardedMemory();
  std::byte* Take(size_t size);  // zeroes, 64-byte aligned, never used again after
  bool Contains(const std::byte* at) const { return at >= data_ && at < data_ + size_; }
  void Open();
  void Close();

 private:
  std::byte* data_;
  size_t size_;
  size_t used_ = 0;
  int open_ = 0;
};

// The options with the machine's devices, which outlive the engine, in place of their own.
EngineOptions On(FakeMachine& machine, EngineOptions options);

// Puts `work` on the queue of a fake device; it may touch that device's memory alone.
void AskFake(DeviceQueue& queue, std::function<void()> work);

}  // namespace tandem::testing
