#include "engine/device/cuda/cuda_device.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/device/cuda/handles.h"

namespace tandem {
namespace {

// The capture that a stream takes part in; 0: none, its work is done.
unsigned long long CaptureOf(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  CheckCuda(cudaStreamIsCapturing(stream, &status), "ask whether a stream is captured");
  if (status == cudaStreamCaptureStatusNone) return 0;
  unsigned long long id = 0;
  CheckCuda(cudaStreamGetCaptureInfo(stream, &status, &id), "ask for a stream's capture");
  return id;
}

void CallIn(cudaStream_t stream, std::function<void()> work) {
  auto own = std::make_unique<std::function<void()>>(std::move(work));
  const auto call = [](void* data) {
    const std::unique_ptr<std::function<void()>> todo(static_cast<std::function<void()>*>(data));
    (*todo)();
  };
  CheckCuda(cudaLaunchHostFunc(stream, call, own.get()), "put host work in a stream");
  own.release();  // the call's; lost with the device, whose streams then run nothing more
}

// A stream with no work of its own, from which marks are told of; made when first used.
struct Teller {
  CudaStream stream;
};

// Within a capture a mark is an order between nodes (`captured_`), and, of an event that tells
// time, a node that records `event_` whenever the graph runs.
class Event final : public DeviceEvent {
 public:
  Event(int ordinal, bool timed, std::shared_ptr<Teller> teller)
      : ordinal_(ordinal),
        timed_(timed),
        event_(timed ? MakeTimedEvent(ordinal) : MakeOrderEvent(ordinal)),
        teller_(std::move(teller)) {}

  Nanos Since(const DeviceEvent& earlier) const override {
    OnDevice current(ordinal_);
    float millis = 0;
    const auto& other = static_cast<const Event&>(earlier);
    CheckCuda(cudaEventElapsedTime(&millis, other.event_.get(), event_.get()),
              "time between two events");
    return NanosFromSeconds(double{millis} * 1e-3);
  }
  void Finish() const override {
    Check(capture_ == 0, "cuda: the host waits for a mark of a recording; wait for its queue");
    OnDevice current(ordinal_);
    CheckCuda(cudaEventSynchronize(event_.get()), "wait for an event");
  }
  // The wait takes the event as it is marked now, whatever is marked later.
  void WhenPassed(std::function<void()> tell) const override {
    Check(capture_ == 0, "cuda: a mark of a recording tells nobody");
    OnDevice current(ordinal_);
    if (teller_->stream == nullptr) teller_->stream = MakeStream(ordinal_, true);
    CheckCuda(cudaStreamWaitEvent(teller_->stream.get(), event_.get(), 0), "let a stream wait");
    CallIn(teller_->stream.get(), std::move(tell));
  }

  void MarkIn(cudaStream_t stream) {
    OnDevice current(ordinal_);
    capture_ = CaptureOf(stream);
    if (capture_ == 0) {
      CheckCuda(cudaEventRecord(event_.get(), stream), "mark a stream");
      return;
    }
    if (timed_) {
      CheckCuda(cudaEventRecordWithFlags(event_.get(), stream, cudaEventRecordExternal),
                "keep a mark in a graph");
    }
    if (captured_ == nullptr) captured_ = MakeOrderEvent(ordinal_);
    CheckCuda(cudaEventRecord(captured_.get(), stream), "keep a mark in a graph");
  }

  // `stream` is of the current device.
  void LetWait(cudaStream_t stream) const {
    // A replay comes after what was asked before it, and what is asked after it later.
    if (CaptureOf(stream) != capture_) return;
    const cudaEvent_t event = capture_ == 0 ? event_.get() : captured_.get();
    CheckCuda(cudaStreamWaitEvent(stream, event, 0), "let a stream wait");
  }

 private:
  int ordinal_;
  bool timed_;
  CudaEventHandle event_, captured_;
  unsigned long long capture_ = 0;  // in which it was marked last
  std::shared_ptr<Teller> teller_;
};

class Queue final : public DeviceQueue {
 public:
  Queue(int ordinal, QueueRole role, GpuPart* part, std::shared_ptr<Teller> teller)
      : ordinal_(ordinal), teller_(std::move(teller)) {
    const bool urgent = role != QueueRole::kCompute;
    stream_ = part == nullptr ? MakeStream(ordinal, urgent)
                              : CudaStream(static_cast<cudaStream_t>(part->MakeStream(urgent)),
                                           StreamDeleter{ordinal});
  }

  void* native() const override { return stream_.get(); }
  std::unique_ptr<DeviceEvent> MakeEvent() override {
    return std::make_unique<Event>(ordinal_, true, teller_);
  }
  std::unique_ptr<DeviceEvent> MakeOrderEvent() override {
    return std::make_unique<Event>(ordinal_, false, teller_);
  }
  void Mark(DeviceEvent& event) override { static_cast<Event&>(event).MarkIn(stream_.get()); }
  // For what the host's processor does the asking thread waits: a call that waits within a stream
  // could hold up another stream's, and with it what it waits for.
  void WaitFor(const DeviceEvent& event) override {
    const auto* own = dynamic_cast<const Event*>(&event);
    if (own == nullptr) return event.Finish();
    OnDevice current(ordinal_);
    own->LetWait(stream_.get());
  }
  void Copy(const QueueCopy& copy) override {
    OnDevice current(ordinal_);
    // Unified addressing tells where each end lies.
    if (copy.rows == 1) {
      CheckCuda(
          cudaMemcpyAsync(copy.to, copy.from, copy.row_bytes, cudaMemcpyDefault, stream_.get()),
          "copy");
      return;
    }
    CheckCuda(cudaMemcpy2DAsync(copy.to, copy.to_stride, copy.from, copy.from_stride,
                                copy.row_bytes, copy.rows, cudaMemcpyDefault, stream_.get()),
              "copy rows");
  }
  void Call(std::function<void()> work) override {
    OnDevice current(ordinal_);
    CallIn(stream_.get(), std::move(work));
  }
  void Finish() override {
    OnDevice current(ordinal_);
    CheckCuda(cudaStreamSynchronize(stream_.get()), "wait for a stream");
  }

 private:
  int ordinal_;
  CudaStream stream_;
  std::shared_ptr<Teller> teller_;
};

// The devices that are alive, by GPU.
class Registry {
 public:
  static Registry& Get() {
    static Registry registry;
    return registry;
  }
  void Add(int ordinal, const Device* device) {
    const std::scoped_lock lock(mutex_);
    devices_.emplace(ordinal, device);
  }
  void Remove(int ordinal, const Device* device) {
    const std::scoped_lock lock(mutex_);
    const auto [first, last] = devices_.equal_range(ordinal);
    const auto found =
        std::find_if(first, last, [&](const auto& entry) { return entry.second == device; });
    if (found != last) devices_.erase(found);
  }
  Bytes Held(int ordinal) {
    const std::scoped_lock lock(mutex_);
    Bytes held;
    const auto [first, last] = devices_.equal_range(ordinal);
    for (auto it = first; it != last; ++it) held += it->second->ledger().used();
    return held;
  }

 private:
  std::mutex mutex_;
  std::multimap<int, const Device*> devices_;
};

class CudaDevice final : public Device {
 public:
  CudaDevice(DeviceId id, int ordinal, Bytes capacity, std::shared_ptr<GpuPart> part)
      : Device(id, fmt::format("cuda:{}", ordinal), capacity),
        ordinal_(ordinal),
        part_(std::move(part)) {
    const auto teller = std::make_shared<Teller>();
    for (size_t role = 0; role < kQueueRoles; ++role) {
      queues_[role] =
          std::make_unique<Queue>(ordinal, static_cast<QueueRole>(role), part_.get(), teller);
    }
    Registry::Get().Add(ordinal_, this);
  }
  ~CudaDevice() override { Registry::Get().Remove(ordinal_, this); }

  DeviceQueue* queue(QueueRole role) override { return queues_[static_cast<size_t>(role)].get(); }

  void Upload(std::byte* to, const std::byte* from, size_t size) override { Now(to, from, size); }
  void Download(std::byte* to, const std::byte* from, size_t size) override { Now(to, from, size); }

 private:
  // Through a stream of its own device: the default stream has no part in anything.
  void Now(std::byte* to, const std::byte* from, size_t size) {
    if (size == 0) return;
    DeviceQueue& queue = *queues_[static_cast<size_t>(QueueRole::kCopyIn)];
    queue.Copy(QueueCopy{.to = to, .from = from, .row_bytes = size});
    queue.Finish();
  }

  std::byte* AllocateRaw(size_t size) override {
    OnDevice current(ordinal_);
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, size);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    CheckCuda(status, "allocate");
    auto stream =
        static_cast<cudaStream_t>(queues_[static_cast<size_t>(QueueRole::kCopyIn)]->native());
    CheckCuda(cudaMemsetAsync(data, 0, size, stream), "zero new memory");
    CheckCuda(cudaStreamSynchronize(stream), "zero new memory");
    return static_cast<std::byte*>(data);
  }
  void FreeRaw(std::byte* data, size_t) noexcept override {
    const OnDevice current(ordinal_, std::nothrow);
    cudaFree(data);
  }

  int ordinal_;
  std::shared_ptr<GpuPart> part_;  // before the queues, whose streams are of it
  std::array<std::unique_ptr<DeviceQueue>, kQueueRoles> queues_;
};

class PinnedHost final : public Device {
 public:
  explicit PinnedHost(Bytes capacity) : Device(kHost, "host (page-locked)", capacity) {
    CheckCuda(cudaGetDevice(&ordinal_), "which device is current");
  }

 private:
  std::byte* AllocateRaw(size_t size) override {
    OnDevice current(ordinal_);
    void* data = nullptr;
    const cudaError_t status =
        cudaHostAlloc(&data, size, cudaHostAllocPortable | cudaHostAllocMapped);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    CheckCuda(status, "allocate page-locked memory");
    return static_cast<std::byte*>(std::memset(data, 0, size));
  }
  void FreeRaw(std::byte* data, size_t) noexcept override {
    const OnDevice current(ordinal_, std::nothrow);
    cudaFreeHost(data);
  }

  int ordinal_ = 0;  // by whose context memory is page-locked, for all of them
};

}  // namespace

std::unique_ptr<Device> MakeCudaDevice(DeviceId id, int ordinal, Bytes capacity,
                                       std::shared_ptr<GpuPart> part) {
  return std::make_unique<CudaDevice>(id, ordinal, capacity, std::move(part));
}

std::unique_ptr<Device> MakePinnedHost(Bytes capacity) {
  return std::make_unique<PinnedHost>(capacity);
}

void MakeGpuCurrent(int ordinal) { MakeCurrent(ordinal); }

bool GrantPeerAccess(int from, int to) {
  if (from == to) return true;
  int granted = 0;
  CheckCuda(cudaDeviceCanAccessPeer(&granted, from, to), "ask for peer access");
  if (granted == 0) return false;
  OnDevice current(from);
  const cudaError_t status = cudaDeviceEnablePeerAccess(to, 0);
  if (status == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();
    return true;
  }
  CheckCuda(status, "enable peer access");
  return true;
}

bool IsGpuLost(int ordinal) {
  try {
    OnDevice current(ordinal);
    return IsSticky(cudaDeviceSynchronize());
  } catch (const Error&) {
    return true;  // it cannot even be made current
  }
}

GpuMemory ReadGpuMemory(int ordinal) {
  OnDevice current(ordinal);
  size_t free = 0, total = 0;
  CheckCuda(cudaMemGetInfo(&free, &total), "ask for free memory");
  return GpuMemory{Bytes{free}, Bytes{total}};
}

Bytes LedgerBytes(int ordinal) { return Registry::Get().Held(ordinal); }

}  // namespace tandem
