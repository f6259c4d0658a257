#include "tests/support/peer_machine.h"

#include <array>
#include <chrono>
#include <cstring>

#include "engine/link/cuda/litmus_kernel.h"
#include "engine/link/cuda/p2p_kernels.h"
#include "tests/support/emulated_gpus/machine.h"

namespace tandem::testing {
namespace {

using emulated::Machine;
using emulated::Place;

class PeerEvent final : public DeviceEvent {
 public:
  Nanos Since(const DeviceEvent& earlier) const override {
    const auto& other = static_cast<const PeerEvent&>(earlier);
    return Nanos{
        std::chrono::duration_cast<std::chrono::nanoseconds>(state->when - other.state->when)
            .count()};
  }
  void Finish() const override { state->Wait(state->asked); }
  void WhenPassed(std::function<void()> tell) const override {
    Finish();
    tell();
  }

  const emulated::Event state = std::make_shared<emulated::EventState>();
};

class PeerQueue final : public DeviceQueue {
 public:
  explicit PeerQueue(int device) : stream_(Machine::Get().MakeStream(device)) {}
  ~PeerQueue() override { Machine::Get().DestroyStream(stream_); }

  void* native() const override { return stream_; }
  std::unique_ptr<DeviceEvent> MakeEvent() override { return std::make_unique<PeerEvent>(); }
  void Mark(DeviceEvent& event) override {
    emulated::Mark(*stream_, static_cast<PeerEvent&>(event).state);
  }
  void WaitFor(const DeviceEvent& event) override {
    emulated::WaitFor(*stream_, static_cast<const PeerEvent&>(event).state);
  }
  void Copy(const QueueCopy& copy) override {
    stream_->Put([copy] {
      for (uint64_t row = 0; row < copy.rows; ++row) {
        std::memcpy(copy.to + row * copy.to_stride, copy.from + row * copy.from_stride,
                    copy.row_bytes);
      }
    });
  }
  void Call(std::function<void()> work) override { stream_->Put(std::move(work)); }
  void Finish() override { stream_->Finish(); }

 private:
  emulated::Stream* const stream_;
};

class PeerDevice final : public Device {
 public:
  explicit PeerDevice(int ordinal)
      : Device(DeviceId{ordinal}, "gpu:" + std::to_string(ordinal), Bytes{}), ordinal_(ordinal) {
    for (auto& queue : queues_) queue = std::make_unique<PeerQueue>(ordinal);
  }
  DeviceQueue* queue(QueueRole role) override { return queues_[static_cast<size_t>(role)].get(); }

 private:
  std::byte* AllocateRaw(size_t size) override {
    void* data = Machine::Get().Allocate(Place::kDevice, ordinal_, size);
    return static_cast<std::byte*>(std::memset(data, 0, size));
  }
  void FreeRaw(std::byte* data, size_t) noexcept override {
    Machine::Get().Free(Place::kDevice, data);
  }

  const int ordinal_;
  std::array<std::unique_ptr<DeviceQueue>, kQueueRoles> queues_;
};

class PeerHost final : public Device {
 public:
  PeerHost() : Device(kHost, "host", Bytes{}) {}

 private:
  std::byte* AllocateRaw(size_t size) override {
    void* data = Machine::Get().Allocate(Place::kPinned, -1, size);
    return static_cast<std::byte*>(std::memset(data, 0, size));
  }
  void FreeRaw(std::byte* data, size_t) noexcept override {
    Machine::Get().Free(Place::kPinned, data);
  }
};

class EmulatedPeerKernels final : public PeerKernels {
 public:
  void Reduce(size_t device, DeviceQueue& queue, WireType wire, peer::Way way, uint32_t channels,
              const peer::ReduceArgs& args) override {
    emulated::CurrentDevice() = static_cast<int>(device);
    peer::LaunchReduce(wire, way, channels, queue.native(), args);
  }
  void ReduceRows(size_t device, DeviceQueue& queue, WireType wire, uint32_t blocks,
                  const peer::RowsArgs& args) override {
    emulated::CurrentDevice() = static_cast<int>(device);
    peer::LaunchReduceRows(wire, blocks, queue.native(), args);
  }
  void Send(size_t device, DeviceQueue& queue, WireType wire, peer::Way way, uint32_t channels,
            const peer::SendArgs& args) override {
    emulated::CurrentDevice() = static_cast<int>(device);
    peer::LaunchSend(wire, way, channels, queue.native(), args);
  }
  void Receive(size_t device, DeviceQueue& queue, WireType wire, peer::Way way, uint32_t channels,
               const peer::SendArgs& args) override {
    emulated::CurrentDevice() = static_cast<int>(device);
    peer::LaunchReceive(wire, way, channels, queue.native(), args);
  }
  void Copy(size_t device, DeviceQueue& queue, const peer::CopyArgs& args) override {
    emulated::CurrentDevice() = static_cast<int>(device);
    peer::LaunchCopy(queue.native(), args);
  }
  void Litmus(size_t device, DeviceQueue& queue, uint32_t blocks, uint32_t threads,
              const peer::LitmusArgs& args) override {
    emulated::CurrentDevice() = static_cast<int>(device);
    peer::LaunchLitmus(blocks, threads, queue.native(), args);
  }
};

}  // namespace

PeerMachine::PeerMachine(size_t n) : host(std::make_unique<PeerHost>()) {
  for (size_t d = 0; d < n; ++d)
    devices.push_back(std::make_unique<PeerDevice>(static_cast<int>(d)));
}
PeerMachine::~PeerMachine() { FinishAll(); }

std::unique_ptr<PeerKernels> MakePeerKernels() { return std::make_unique<EmulatedPeerKernels>(); }

void AskAddNorm(size_t device, DeviceQueue& queue, const cuda::NormCall& call) {
  emulated::CurrentDevice() = static_cast<int>(device);
  cuda::LaunchNorm(call, cuda::GpuStream{queue.native()});
}

std::string NoPeerMachine() { return {}; }
bool HoldsStoresBack() { return true; }

}  // namespace tandem::testing
