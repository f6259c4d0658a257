#include "tests/support/emulated_gpus/machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "tests/support/cuda_emulation/emulation.h"
#include "tests/support/emulated_gpus/capture.h"

namespace tandem::emulated {
namespace {

constexpr int kJunk = 0xff;  // as floats and as halves: NaN
constexpr size_t kAlign = 512;

int Setting(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

}  // namespace

void EventState::Wait(uint64_t mark) {
  std::unique_lock lock(mutex);
  passed_one.wait(lock, [&] { return passed >= mark; });
}

Stream::Stream(int device)
    : device_(device),
      random_(12345u + static_cast<uint32_t>(device)),
      thread_([this] { Run(); }) {}

Stream::~Stream() {
  Finish();
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Stream::Put(std::function<void()> work) {
  {
    const std::scoped_lock lock(mutex_);
    work_.push_back(std::move(work));
  }
  changed_.notify_all();
}

void Stream::Finish() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return work_.empty() && !busy_; });
}

bool Stream::idle() {
  const std::scoped_lock lock(mutex_);
  return work_.empty() && !busy_;
}

void Stream::Run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !work_.empty(); });
    if (work_.empty()) return;
    const std::function<void()> work = std::move(work_.front());
    work_.pop_front();
    busy_ = true;
    random_ = random_ * 1664525u + 1013904223u;
    const bool late = random_ >> 29 == 0;
    lock.unlock();
    // Now and then later than its neighbours, so that a missing wait shows.
    if (late) std::this_thread::sleep_for(std::chrono::microseconds(30));
    work();
    lock.lock();
    busy_ = false;
    if (work_.empty()) changed_.notify_all();
  }
}

void Mark(Stream& stream, const Event& event) {
  uint64_t mark = 0;
  {
    const std::scoped_lock lock(event->mutex);
    mark = ++event->asked;
  }
  stream.Put([event, mark] {
    {
      const std::scoped_lock lock(event->mutex);
      event->passed = std::max(event->passed, mark);
      event->when = std::chrono::steady_clock::now();
    }
    event->passed_one.notify_all();
  });
}

void WaitFor(Stream& stream, const Event& event) {
  uint64_t mark = 0;
  {
    const std::scoped_lock lock(event->mutex);
    mark = event->asked;
  }
  if (mark > 0) stream.Put([event, mark] { event->Wait(mark); });
}

int& CurrentDevice() {
  static thread_local int device = 0;
  return device;
}

Machine& Machine::Get() {
  // Never destroyed: streams may outlive other statics.
  static auto* machine = new Machine;
  return *machine;
}

Machine::Machine()
    : devices_(Setting("TANDEM_EMULATED_GPUS", 2)),
      peers_(Setting("TANDEM_EMULATED_PEERS", 1) != 0),
      untouched_(Setting("TANDEM_EMULATED_UNTOUCHED", -1)),
      kernels_left_(Setting("TANDEM_EMULATED_LOST_AFTER", -1)) {}

bool Machine::CountKernel() {
  if (kernels_left_ > 0 && --kernels_left_ == 0) lost_ = true;
  return !lost_;
}

uint64_t Machine::used_bytes(int device) {
  const std::scoped_lock lock(mutex_);
  uint64_t used = 0;
  for (const auto& [at, allocation] : allocations_) {
    if (allocation.place == Place::kDevice && allocation.device == device) used += allocation.bytes;
  }
  return used;
}

void* Machine::Allocate(Place place, int device, uint64_t bytes) {
  if (place == Place::kDevice && used_bytes(device) + bytes > total_bytes()) return nullptr;
  void* data =
      std::aligned_alloc(kAlign, (std::max<uint64_t>(bytes, 1) + kAlign - 1) / kAlign * kAlign);
  if (data == nullptr) return nullptr;
  std::memset(data, kJunk, bytes);
  const std::scoped_lock lock(mutex_);
  allocations_[reinterpret_cast<uintptr_t>(data)] = {place, device, bytes, true};
  return data;
}

bool Machine::Free(Place place, void* data) {
  {
    const std::scoped_lock lock(mutex_);
    const auto found = allocations_.find(reinterpret_cast<uintptr_t>(data));
    if (found == allocations_.end() || found->second.place != place || !found->second.owned)
      return false;
  }
  FinishDevice(-1);  // as cudaFree does
  const std::scoped_lock lock(mutex_);
  const auto found = allocations_.find(reinterpret_cast<uintptr_t>(data));
  std::memset(data, kJunk, found->second.bytes);
  allocations_.erase(found);
  std::free(data);
  return true;
}

bool Machine::Pin(void* data, uint64_t bytes) {
  const std::scoped_lock lock(mutex_);
  return allocations_
      .try_emplace(reinterpret_cast<uintptr_t>(data), Allocation{Place::kPinned, -1, bytes, false})
      .second;
}

bool Machine::Unpin(void* data) {
  FinishDevice(-1);
  const std::scoped_lock lock(mutex_);
  const auto found = allocations_.find(reinterpret_cast<uintptr_t>(data));
  if (found == allocations_.end() || found->second.owned) return false;
  allocations_.erase(found);
  return true;
}

bool Machine::Locate(const void* data, uint64_t bytes, Place& place, int* device) {
  const std::scoped_lock lock(mutex_);
  const auto at = reinterpret_cast<uintptr_t>(data);
  place = Place::kPageable;
  auto after = allocations_.upper_bound(at);
  if (after == allocations_.begin()) return true;
  const auto& [begin, allocation] = *std::prev(after);
  if (at >= begin + allocation.bytes) return true;
  place = allocation.place;
  if (device != nullptr) *device = allocation.device;
  return at + bytes <= begin + allocation.bytes;
}

Stream* Machine::MakeStream(int device) {
  auto stream = std::make_unique<Stream>(device);
  Stream* made = stream.get();
  const std::scoped_lock lock(mutex_);
  streams_[made] = std::move(stream);
  return made;
}

void Machine::DestroyStream(Stream* stream) {
  std::unique_ptr<Stream> gone;
  const std::scoped_lock lock(mutex_);
  const auto found = streams_.find(stream);
  gone = std::move(found->second);
  streams_.erase(found);
}

bool Machine::Knows(const Stream* stream) {
  const std::scoped_lock lock(mutex_);
  return streams_.count(const_cast<Stream*>(stream)) > 0;
}

void Machine::FinishDevice(int device) {
  std::vector<Stream*> streams;
  {
    const std::scoped_lock lock(mutex_);
    for (const auto& [stream, owner] : streams_) {
      if (device < 0 || stream->device() == device) streams.push_back(stream);
    }
  }
  for (Stream* stream : streams) stream->Finish();
}

bool Machine::EnablePeer(int from, int to) {
  const std::scoped_lock lock(mutex_);
  return enabled_.emplace(from, to).second;
}

void Machine::Touch(int device) {
  Check(device != untouched_, "emulated gpus: a context on a GPU that nobody named");
  const std::scoped_lock lock(mutex_);
  contexts_.insert(device);
}

std::set<int> Machine::contexts() {
  const std::scoped_lock lock(mutex_);
  return contexts_;
}

}  // namespace tandem::emulated

namespace tandem::cuda {

void InStream(void* stream, const char* what, std::function<void()> work) {
  auto* to = static_cast<emulated::Stream*>(stream);
  Check(emulated::Machine::Get().Knows(to), "emulated gpus: a kernel on a stream that is none");
  if (to->device() != emulated::CurrentDevice()) {
    Fail(
        ErrorCode::kDevice,
        fmt::format("cuda:{}: {}: launched on a stream of cuda:{} (cudaErrorInvalidResourceHandle)",
                    emulated::CurrentDevice(), what, to->device()));
  }
  work = [work = std::move(work)] {
    if (emulated::Machine::Get().CountKernel()) work();
  };
  emulated::Capture* capture = emulated::TheCapture();
  if (capture != nullptr && capture->Holds(to)) return capture->Work(to, std::move(work));
  to->Put(std::move(work));
}

}  // namespace tandem::cuda
