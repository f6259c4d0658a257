#include "tests/support/fake_machine.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <set>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/device/cpu/cpu_device.h"
#include "engine/link/queued_transport.h"
#include "tests/support/fake_ops.h"

namespace tandem::testing {
namespace {

constexpr size_t kDeviceMemory = size_t{256} << 20;

Nanos SteadyNow() {
  return Nanos{std::chrono::duration_cast<std::chrono::nanoseconds>(
                   std::chrono::steady_clock::now().time_since_epoch())
                   .count()};
}

uint64_t Mix(uint64_t x) {
  x ^= x >> 31;
  x *= 0x9e3779b97f4a7c15u;
  return x ^ (x >> 29);
}

// All memory of fake devices that is alive, so that a copy can open both its ends.
std::set<GuardedMemory*>& AllMemory() {
  static std::set<GuardedMemory*> all;
  return all;
}

class Opening {
 public:
  explicit Opening(std::vector<GuardedMemory*> memory) : memory_(std::move(memory)) {
    for (GuardedMemory* m : memory_) m->Open();
  }
  ~Opening() {
    for (GuardedMemory* m : memory_) m->Close();
  }

 private:
  std::vector<GuardedMemory*> memory_;
};

}  // namespace

GuardedMemory::GuardedMemory(size_t size) : size_(size) {
  void* at = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  Check(at != MAP_FAILED, "fake memory: mmap");
  data_ = static_cast<std::byte*>(at);
  AllMemory().insert(this);
}

GuardedMemory::~GuardedMemory() {
  AllMemory().erase(this);
  munmap(data_, size_);
}

std::byte* GuardedMemory::Take(size_t size) {
  const size_t rounded = (size + 63) / 64 * 64;
  if (size_ - used_ < rounded) return nullptr;
  std::byte* at = data_ + used_;
  used_ += rounded;
  return at;
}

void GuardedMemory::Open() {
  if (open_++ > 0 || used_ == 0) return;
  Check(mprotect(data_, (used_ + 4095) / 4096 * 4096, PROT_READ | PROT_WRITE) == 0, "mprotect");
}

void GuardedMemory::Close() {
  if (--open_ > 0 || used_ == 0) return;
  Check(mprotect(data_, (used_ + 4095) / 4096 * 4096, PROT_NONE) == 0, "mprotect");
}

// How often an event was marked and passed, and when last. Outlives the event while work is open.
struct EventState {
  uint64_t marked = 0;
  uint64_t passed = 0;
  bool in_recording = false;  // the last mark asked for was
  Nanos when;
  bool on_host = false;
};

// What a queue is asked for: work, a mark or a wait.
struct FakeItem {
  std::function<void()> work;
  std::vector<GuardedMemory*> memory;
  std::shared_ptr<EventState> marks;
  uint64_t mark = 0;
  std::shared_ptr<EventState> waits;
  uint64_t wait = 0;
  Nanos asked;
};

class FakeRecording final : public Recording {
 public:
  explicit FakeRecording(FakeMachine& machine) : machine_(machine) {}
  void Replay() override;
  void Keep(FakeQueue* queue, FakeItem item) {
    if (item.waits != nullptr && !Marked(*item.waits)) return;
    if (item.marks != nullptr) item.marks->in_recording = true;
    items_.emplace_back(queue, std::move(item));
  }

 private:
  bool Marked(const EventState& state) const {
    return std::any_of(items_.begin(), items_.end(),
                       [&](const auto& entry) { return entry.second.marks.get() == &state; });
  }
  // Everything asked of any queue from here on comes after everything asked before.
  void Barrier();

  FakeMachine& machine_;
  std::vector<std::pair<FakeQueue*, FakeItem>> items_;  // in the order that they were asked for
};

class FakeEvent final : public DeviceEvent {
 public:
  FakeEvent(FakeMachine& machine, bool on_host) : machine_(machine) { state_->on_host = on_host; }
  Nanos Since(const DeviceEvent& earlier) const override {
    const EventState& other = *static_cast<const FakeEvent&>(earlier).state_;
    Check(state_->passed == state_->marked && other.passed == other.marked,
          "fake event: times are asked for before the mark was passed");
    return state_->when - other.when;
  }
  void Finish() const override {
    Check(!state_->in_recording, "fake event: the host waits for a mark of a recording");
    machine_.RunUntil([this] { return state_->passed == state_->marked; });
  }
  void WhenPassed(std::function<void()> tell) const override {
    Finish();
    tell();
  }

  FakeMachine& machine_;
  std::shared_ptr<EventState> state_ = std::make_shared<EventState>();
};

class FakeQueue final : public DeviceQueue {
 public:
  FakeQueue(FakeMachine& machine, GuardedMemory& memory, bool on_host)
      : machine_(machine), memory_(memory), on_host_(on_host) {
    machine_.Add(this);
  }
  ~FakeQueue() override { machine_.Remove(this); }

  void* native() const override { return nullptr; }
  bool on_host() const override { return on_host_; }
  std::unique_ptr<DeviceEvent> MakeEvent() override {
    return std::make_unique<FakeEvent>(machine_, on_host_);
  }
  void Mark(DeviceEvent& event) override {
    Put(FakeItem{.marks = static_cast<FakeEvent&>(event).state_});
  }
  void WaitFor(const DeviceEvent& event) override {
    const auto& state = static_cast<const FakeEvent&>(event).state_;
    // As a card's queue does for the host's processor.
    if (state->on_host && !on_host_ && state->marked > 0) return event.Finish();
    Put(FakeItem{.waits = state});
  }
  void Copy(const QueueCopy& copy) override {
    std::vector<GuardedMemory*> ends;
    for (GuardedMemory* memory : AllMemory()) {
      if (memory->Contains(copy.to) || memory->Contains(copy.from)) ends.push_back(memory);
    }
    for (const GuardedMemory* end : ends) {
      Check(!on_host_ || end == &memory_, "fake machine: the host's processor reaches no card");
    }
    Ask(std::move(ends), [copy] {
      for (uint64_t row = 0; row < copy.rows; ++row) {
        std::memcpy(copy.to + row * copy.to_stride, copy.from + row * copy.from_stride,
                    copy.row_bytes);
      }
    });
  }
  void Call(std::function<void()> work) override { Ask({}, std::move(work)); }
  void Finish() override {
    Check(!machine_.recording(), "fake queue: the host waits while recording");
    machine_.RunUntil([this] { return items_.empty(); });
  }

  void AskHere(std::function<void()> work) { Ask({&memory_}, std::move(work)); }
  // Into the queue, with marks and waits counted from now.
  void Take(FakeItem item) {
    item.asked = SteadyNow();
    if (item.marks != nullptr) item.mark = ++item.marks->marked;
    if (item.waits != nullptr) {
      if (item.waits->marked == 0) return;
      item.wait = item.waits->marked;
    }
    items_.push_back(std::move(item));
  }
  bool empty() const { return items_.empty(); }
  bool CanGoOn() const {
    return !items_.empty() &&
           (items_.front().waits == nullptr || items_.front().waits->passed >= items_.front().wait);
  }
  void RunOne() {
    const FakeItem item = std::move(items_.front());
    items_.pop_front();
    now_ = std::max(now_, item.asked);
    if (item.waits != nullptr) now_ = std::max(now_, item.waits->when);
    if (item.work) {
      machine_.CountItem();
      const Opening opening(item.memory);
      item.work();
      now_ += FakeMachine::kItemTime;
    }
    if (item.marks != nullptr) {
      item.marks->passed = item.mark;
      item.marks->when = now_;
    }
  }

 private:
  void Put(FakeItem item) {
    if (machine_.recording_ != nullptr) return machine_.recording_->Keep(this, std::move(item));
    if (item.marks != nullptr) item.marks->in_recording = false;
    Take(std::move(item));
  }
  void Ask(std::vector<GuardedMemory*> memory, std::function<void()> work) {
    Put(FakeItem{.work = std::move(work), .memory = std::move(memory)});
  }

  FakeMachine& machine_;
  GuardedMemory& memory_;
  const bool on_host_;
  std::deque<FakeItem> items_;
  Nanos now_;
};

void FakeRecording::Barrier() {
  std::vector<std::shared_ptr<EventState>> reached;
  for (FakeQueue* queue : machine_.queues_) {
    reached.push_back(std::make_shared<EventState>());
    queue->Take(FakeItem{.marks = reached.back()});
  }
  for (FakeQueue* queue : machine_.queues_) {
    for (const auto& state : reached) queue->Take(FakeItem{.waits = state});
  }
}

void FakeRecording::Replay() {
  Check(!machine_.recording(), "fake recording: replayed while recording");
  ++machine_.replays_;
  Barrier();
  for (const auto& [queue, item] : items_) queue->Take(item);
  Barrier();
}

class FakeRecorder final : public QueueRecorder {
 public:
  explicit FakeRecorder(FakeMachine& machine) : machine_(machine) {}
  void Begin() override {
    Check(made_ == nullptr, "fake recorder: one recording at a time");
    made_ = std::make_unique<FakeRecording>(machine_);
    machine_.recording_ = made_.get();
  }
  std::unique_ptr<Recording> End() override {
    machine_.recording_ = nullptr;
    return std::move(made_);
  }
  void Abandon() noexcept override {
    machine_.recording_ = nullptr;
    made_ = nullptr;
  }

 private:
  FakeMachine& machine_;
  std::unique_ptr<FakeRecording> made_;
};

FakeMachine::FakeMachine(uint64_t seed)
    : seed_(seed), recorder_(std::make_unique<FakeRecorder>(*this)) {}
FakeMachine::~FakeMachine() = default;
QueueRecorder& FakeMachine::recorder() { return *recorder_; }

namespace {

class FakeDevice final : public Device {
 public:
  FakeDevice(FakeMachine& machine, DeviceId id, Bytes capacity, bool on_host)
      : Device(id, fmt::format("fake:{}", id.value), capacity),
        machine_(machine),
        memory_(kDeviceMemory) {
    for (auto& queue : queues_) queue = std::make_unique<FakeQueue>(machine, memory_, on_host);
  }
  DeviceQueue* queue(QueueRole role) override { return queues_[static_cast<size_t>(role)].get(); }
  void Upload(std::byte* to, const std::byte* from, size_t size) override { Now(to, from, size); }
  void Download(std::byte* to, const std::byte* from, size_t size) override { Now(to, from, size); }

 private:
  void Now(std::byte* to, const std::byte* from, size_t size) {
    for (const auto& queue : queues_) Check(queue->empty(), "fake device: a queue is not empty");
    const Opening opening({&memory_});
    std::memcpy(to, from, size);
  }
  std::byte* AllocateRaw(size_t size) override {
    Check(!machine_.recording(), "fake device: memory is asked for while recording");
    return memory_.Take(size);
  }
  void FreeRaw(std::byte*, size_t) noexcept override {}

  FakeMachine& machine_;
  GuardedMemory memory_;
  std::unique_ptr<FakeQueue> queues_[kQueueRoles];
};

class FakeBackend final : public Backend {
 public:
  FakeBackend(FakeMachine& machine, const BackendSetup& setup)
      : machine_(machine), cpu_(MakeCpuBackend(setup)) {
    pinned_ = std::make_unique<CpuDevice>(kHost, setup.pinned_limit, setup.pool);
    for (uint32_t d = 0; d < setup.n_devices; ++d) {
      devices_.push_back(machine.MakeDevice(DeviceId{static_cast<int32_t>(d)},
                                            setup.rig->devices[d].memory,
                                            setup.rig->devices[d].on_host));
      ops_.push_back(MakeFakeOps(cpu_->ops(d), machine, *devices_[d]));
      recorded_ = recorded_ && !setup.rig->devices[d].on_host;
    }
  }
  std::span<const std::unique_ptr<Device>> devices() const override { return devices_; }
  Device& host() override { return *pinned_; }
  Device* pageable_host() override { return &cpu_->host(); }
  Ops& ops(size_t device) override { return *ops_[device]; }
  WireOps& wire_ops(size_t) override { return FakeWireOps(); }
  std::unique_ptr<Transport> MakeTransport(PathKind path) override {
    const bool staged = path == PathKind::kHostStaged;
    return MakeQueuedTransport(staged ? path : PathKind::kCopy, path, devices_, host());
  }
  std::unique_ptr<Transport> MakeHostTransport(PathKind path) override {
    return MakeQueuedTransport(PathKind::kCopy, path, devices_, host());
  }
  // As on GPUs, whose host's processor is never recorded.
  QueueRecorder* recorder() override { return recorded_ ? &machine_.recorder() : nullptr; }
  bool lost() override { return machine_.lost(); }

 private:
  FakeMachine& machine_;
  std::unique_ptr<Backend> cpu_;
  std::unique_ptr<Device> pinned_;
  bool recorded_ = true;
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<std::unique_ptr<Ops>> ops_;
};

}  // namespace

std::unique_ptr<Backend> FakeMachine::MakeBackend(const BackendSetup& setup) {
  return std::make_unique<FakeBackend>(*this, setup);
}

std::unique_ptr<Device> FakeMachine::MakeDevice(DeviceId id, Bytes capacity, bool on_host) {
  return std::make_unique<FakeDevice>(*this, id, capacity, on_host);
}

void FakeMachine::Add(FakeQueue* queue) {
  const uint64_t at = Mix(seed_ * 131 + queues_.size()) % (queues_.size() + 1);
  queues_.insert(queues_.begin() + static_cast<std::ptrdiff_t>(at), queue);
}

void FakeMachine::Remove(FakeQueue* queue) { std::erase(queues_, queue); }

void FakeMachine::RunUntil(const std::function<bool()>& done) {
  while (!done()) {
    const auto next = std::find_if(queues_.begin(), queues_.end(),
                                   [](const FakeQueue* queue) { return queue->CanGoOn(); });
    Check(next != queues_.end(), "fake machine: the host waits for what nothing brings about");
    (*next)->RunOne();
  }
  if (failed_) Fail(ErrorCode::kDevice, "injected: the device fell off the bus");
}

// A device that has failed goes on failing; what was asked of it is dropped quietly.
void FakeMachine::CountItem() {
  ++items_run_;
  if (fail_in_ >= 0 && fail_in_-- == 0) failed_ = true;
}

EngineOptions On(FakeMachine& machine, EngineOptions options) {
  options.hooks.make_backend = [&machine](const BackendSetup& setup) {
    return machine.MakeBackend(setup);
  };
  return options;
}

void AskFake(DeviceQueue& queue, std::function<void()> work) {
  static_cast<FakeQueue&>(queue).AskHere(std::move(work));
}

}  // namespace tandem::testing
