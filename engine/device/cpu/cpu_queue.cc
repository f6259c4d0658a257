#include "engine/device/cpu/cpu_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/device/cpu/slabs.h"

namespace tandem {
namespace {

// A card that has not come so far by then has been lost.
constexpr std::chrono::seconds kLongestWait{120};

int64_t SteadyNow() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Outlives its event while a queue has it to pass.
struct MarkState {
  std::mutex mutex;
  std::condition_variable changed;
  uint64_t asked = 0;
  uint64_t passed = 0;
  Nanos when;
  std::exception_ptr failed;  // what had gone wrong in the queue by then
  std::vector<std::pair<uint64_t, std::function<void()>>> tell;  // by mark

  void Pass(uint64_t mark, std::exception_ptr error) {
    std::vector<std::function<void()>> due;
    {
      const std::lock_guard lock(mutex);
      passed = mark;
      failed = std::move(error);
      when = Nanos{SteadyNow()};
      for (auto& [at, call] : tell) {
        if (at <= passed) due.push_back(std::move(call));
      }
      std::erase_if(tell, [&](const auto& entry) { return entry.first <= passed; });
    }
    changed.notify_all();
    for (const auto& call : due) call();
  }
  void Wait(uint64_t mark) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return passed >= mark; });
  }
};

class CpuEvent final : public DeviceEvent {
 public:
  Nanos Since(const DeviceEvent& earlier) const override {
    return When() - static_cast<const CpuEvent&>(earlier).When();
  }
  void Finish() const override {
    state_->Wait(Asked());
    const std::lock_guard lock(state_->mutex);
    if (state_->failed != nullptr) std::rethrow_exception(state_->failed);
  }
  void WhenPassed(std::function<void()> tell) const override {
    {
      const std::lock_guard lock(state_->mutex);
      if (state_->passed < state_->asked) {
        state_->tell.emplace_back(state_->asked, std::move(tell));
        return;
      }
    }
    tell();
  }

  const std::shared_ptr<MarkState>& state() const { return state_; }
  uint64_t Asked() const {
    const std::lock_guard lock(state_->mutex);
    return state_->asked;
  }

 private:
  Nanos When() const {
    const std::lock_guard lock(state_->mutex);
    Check(state_->passed == state_->asked, "cpu event: its time is asked for before it is passed");
    return state_->when;
  }

  const std::shared_ptr<MarkState> state_ = std::make_shared<MarkState>();
};

// Set by another device's thread.
class Signal {
 public:
  void Set() {
    const std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  bool WaitFor(std::chrono::seconds longest) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, longest, [&] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

class CpuQueue final : public DeviceQueue {
 public:
  explicit CpuQueue(std::string name) : name_(std::move(name)), thread_([this] { Run(); }) {}
  ~CpuQueue() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void* native() const override { return nullptr; }
  bool on_host() const override { return true; }
  std::unique_ptr<DeviceEvent> MakeEvent() override { return std::make_unique<CpuEvent>(); }

  void Mark(DeviceEvent& event) override {
    const std::shared_ptr<MarkState> state = static_cast<CpuEvent&>(event).state();
    uint64_t mark = 0;
    {
      const std::lock_guard lock(state->mutex);
      mark = ++state->asked;
    }
    Put({.work = [this, state, mark] { state->Pass(mark, Failed()); }, .always = true});
  }

  void WaitFor(const DeviceEvent& event) override {
    if (const auto* own = dynamic_cast<const CpuEvent*>(&event)) {
      Put({.work = [state = own->state(), mark = own->Asked()] { state->Wait(mark); }});
      return;
    }
    auto signal = std::make_shared<Signal>();
    event.WhenPassed([signal] { signal->Set(); });
    Put({.work = [this, signal] {
      if (signal->WaitFor(kLongestWait)) return;
      Fail(ErrorCode::kDevice,
           fmt::format("{}: another device has not come to a mark that is waited for within {} s "
                       "(want the card to go on: see what it or the driver says)",
                       name_, kLongestWait.count()));
    }});
  }

  void Copy(const QueueCopy& copy) override {
    Put({.work = [copy] {
      for (uint64_t row = 0; row < copy.rows; ++row) {
        std::memcpy(copy.to + row * copy.to_stride, copy.from + row * copy.from_stride,
                    copy.row_bytes);
      }
    }});
  }

  void Call(std::function<void()> work) override { Put({.work = std::move(work)}); }

  void Finish() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return items_.empty() && !busy_; });
    if (failed_ != nullptr) std::rethrow_exception(std::exchange(failed_, nullptr));
  }

 private:
  struct Item {
    std::function<void()> work;
    bool always = false;  // whatever failed before it
  };

  std::exception_ptr Failed() {
    const std::lock_guard lock(mutex_);
    return failed_;
  }

  void Put(Item item) {
    {
      const std::lock_guard lock(mutex_);
      items_.push_back(std::move(item));
    }
    changed_.notify_all();
  }

  void Run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stopping_ || !items_.empty(); });
      if (items_.empty()) return;
      const Item item = std::move(items_.front());
      items_.pop_front();
      if (failed_ != nullptr && !item.always) {
        if (items_.empty()) changed_.notify_all();
        continue;
      }
      busy_ = true;
      lock.unlock();
      std::exception_ptr error;
      try {
        item.work();
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      busy_ = false;
      if (error != nullptr && failed_ == nullptr) failed_ = error;
      if (items_.empty()) changed_.notify_all();
    }
  }

  const std::string name_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> items_;
  bool busy_ = false;
  bool stopping_ = false;
  std::exception_ptr failed_;
  std::thread thread_;  // last: it uses all of the above
};

class QueuedCpuDevice final : public Device {
 public:
  QueuedCpuDevice(DeviceId id, Bytes capacity, Device& page_locked)
      : Device(id, "cpu", capacity), page_locked_(page_locked) {
    for (auto& queue : queues_) queue = std::make_unique<CpuQueue>(name());
  }

  DeviceQueue* queue(QueueRole role) override { return queues_[static_cast<size_t>(role)].get(); }

 private:
  std::byte* AllocateFor(MemoryUse use, size_t size) override {
    if (use == MemoryUse::kActivations || use == MemoryUse::kWorkspace) {
      Buffer buffer = page_locked_.Allocate(use, Bytes{size}, "values of the host's processor");
      std::byte* data = buffer.data();
      locked_.emplace(data, std::move(buffer));
      return data;
    }
    return AllocateRaw(size);
  }
  std::byte* AllocateRaw(size_t size) override {
    std::byte* data = AllocateHuge(size);
    if (data != nullptr) std::memset(data, 0, size);
    return data;
  }
  void FreeRaw(std::byte* data, size_t) noexcept override {
    if (locked_.erase(data) == 0) std::free(data);
  }

  Device& page_locked_;
  std::map<std::byte*, Buffer> locked_;
  std::array<std::unique_ptr<DeviceQueue>, kQueueRoles> queues_;
};

}  // namespace

std::unique_ptr<Device> MakeQueuedCpuDevice(DeviceId id, Bytes capacity, Device& page_locked) {
  return std::make_unique<QueuedCpuDevice>(id, capacity, page_locked);
}

}  // namespace tandem
