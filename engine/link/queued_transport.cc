#include "engine/link/queued_transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/link/peer_link.h"
#include "engine/plan/fused_ops.h"

namespace tandem {

void QueueChain::Follow(DeviceQueue* first, DeviceQueue* then) {
  if (first == nullptr || then == nullptr || first == then) return;
  auto found = std::find_if(events_.begin(), events_.end(),
                            [&](const auto& entry) { return entry.first == first; });
  if (found == events_.end()) {
    events_.emplace_back(first, first->MakeOrderEvent());
    found = events_.end() - 1;
  }
  first->Mark(*found->second);
  then->WaitFor(*found->second);
}

void QueuedTransport::Copy(const CopyTask& task, TrafficLedger& ledger) {
  CopyAll(std::span(&task, 1), ledger);
}

void QueuedTransport::CopyAll(std::span<const CopyTask> tasks, TrafficLedger& ledger) {
  for (const CopyTask& task : tasks) {
    if (task.bytes() == 0) continue;
    CheckCopyTask(task);
    Check(task.src_queue != nullptr || task.dst_queue != nullptr,
          "transport: a copy between devices with queues names one");
    Begin(task);
  }
  for (const CopyTask& task : tasks) {
    if (task.bytes() > 0) Move(task, ledger);
  }
  for (const CopyTask& task : tasks) {
    if (task.bytes() > 0) End(task);
  }
}

namespace {

// One copy in the queue of the receiver, or of the sender where the host receives or its processor
// does, which reaches no card.
class CopyEngine final : public QueuedTransport {
 public:
  using QueuedTransport::QueuedTransport;
  PathKind mechanism() const override { return PathKind::kCopy; }

 private:
  static DeviceQueue* Carrier(const CopyTask& task) {
    const bool receiver =
        task.dst_queue != nullptr && (task.src_queue == nullptr || !task.dst_queue->on_host());
    return receiver ? task.dst_queue : task.src_queue;
  }
  void Begin(const CopyTask& task) override {
    chain_.Follow(task.src_queue, Carrier(task));
    chain_.Follow(task.dst_queue, Carrier(task));
  }
  void Move(const CopyTask& task, TrafficLedger& ledger) override {
    Carrier(task)->Copy(QueueCopy{.to = task.to,
                                  .to_stride = task.dst_stride,
                                  .from = task.from,
                                  .from_stride = task.src_stride,
                                  .row_bytes = task.row_bytes,
                                  .rows = task.rows});
    ledger.Book(task.src, task.dst, stands_for_, Bytes{task.bytes() - task.padding_bytes});
  }
  void End(const CopyTask& task) override {
    chain_.Follow(Carrier(task), task.src_queue);
    chain_.Follow(Carrier(task), task.dst_queue);
  }
};

// Up in the sender's copy-out queue, down in the receiver's copy-in queue, so that a device sends
// and receives at once; a half of a direction's buffer is filled while the other is emptied.
class HostStaged final : public QueuedTransport {
 public:
  HostStaged(PathKind stands_for, Device& host, std::span<const std::unique_ptr<Device>> devices,
             SmallByKernel small)
      : QueuedTransport(stands_for, small.recordable),
        host_(host),
        devices_(devices),
        kernels_(std::move(small.kernels)) {
    if (kernels_ == nullptr || devices.size() < 2) return;
    small_ = std::make_unique<PeerLink>(PeerLinkOptions{.path = PathKind::kHostStaged,
                                                        .words = PeerPlace::kHost,
                                                        .blocks = PeerPlace::kHost,
                                                        .most_words = kMostHostWords,
                                                        .most = small.most},
                                        devices, host, *kernels_);
  }
  PathKind mechanism() const override { return PathKind::kHostStaged; }
  DirectCollectives* direct() override { return small_.get(); }
  std::optional<TransportFailure> TakeFailure() override {
    return small_ != nullptr ? small_->TakeFailure() : std::nullopt;
  }

 private:
  static constexpr uint64_t kHalf = kStagingChunk / 2;
  struct Direction {
    DeviceId src, dst;
    DeviceQueue* up_queue = nullptr;
    DeviceQueue* down_queue = nullptr;
    Buffer staging;
    std::array<std::unique_ptr<DeviceEvent>, 2> up,
        down;  // when each half was last filled, emptied
    uint32_t next = 0;
  };

  void Begin(const CopyTask& task) override {
    const Direction& direction = DirectionOf(task);
    chain_.Follow(task.src_queue, direction.up_queue);
    chain_.Follow(task.dst_queue, direction.down_queue);
  }

  void Move(const CopyTask& task, TrafficLedger& ledger) override {
    Direction& direction = DirectionOf(task);
    for (uint64_t row = 0; row < task.rows; ++row) {
      const std::byte* from = task.from + row * task.src_stride;
      std::byte* to = task.to + row * task.dst_stride;
      for (uint64_t done = 0; done < task.row_bytes; done += kHalf) {
        Chunk(direction, from + done, to + done, std::min(kHalf, task.row_bytes - done));
      }
    }
    const Bytes booked{task.bytes() - task.padding_bytes};
    ledger.Book(task.src, kHost, stands_for_, booked);
    ledger.Book(kHost, task.dst, stands_for_, booked);
  }

  void End(const CopyTask& task) override {
    const Direction& direction = DirectionOf(task);
    chain_.Follow(direction.up_queue, task.src_queue);
    chain_.Follow(direction.down_queue, task.dst_queue);
  }

  static void Chunk(Direction& direction, const std::byte* from, std::byte* to, uint64_t bytes) {
    const uint32_t half = direction.next;
    direction.next ^= 1;
    std::byte* staging = direction.staging.data() + half * kHalf;
    direction.up_queue->WaitFor(*direction.down[half]);  // until what the half held was taken
    direction.up_queue->Copy(QueueCopy{.to = staging, .from = from, .row_bytes = bytes});
    direction.up_queue->Mark(*direction.up[half]);
    direction.down_queue->WaitFor(*direction.up[half]);
    direction.down_queue->Copy(QueueCopy{.to = to, .from = staging, .row_bytes = bytes});
    direction.down_queue->Mark(*direction.down[half]);
  }

  DeviceQueue* QueueOf(DeviceId id, QueueRole role) const {
    Check(!id.IsHost(), "transport: host_staged joins two devices");
    return devices_[static_cast<size_t>(id.value)]->queue(role);
  }

  Direction& DirectionOf(const CopyTask& task) {
    for (auto& direction : directions_) {
      if (direction->src == task.src && direction->dst == task.dst) return *direction;
    }
    auto made = std::make_unique<Direction>();
    made->src = task.src;
    made->dst = task.dst;
    made->up_queue = QueueOf(task.src, QueueRole::kCopyOut);
    made->down_queue = QueueOf(task.dst, QueueRole::kCopyIn);
    made->staging = host_.Allocate(MemoryUse::kWorkspace, Bytes{kStagingChunk}, "link staging");
    for (size_t half = 0; half < 2; ++half) {
      made->up[half] = made->up_queue->MakeOrderEvent();
      made->down[half] = made->down_queue->MakeOrderEvent();
    }
    directions_.push_back(std::move(made));
    return *directions_.back();
  }

  Device& host_;
  const std::span<const std::unique_ptr<Device>> devices_;
  const std::unique_ptr<PeerKernels> kernels_;
  std::unique_ptr<PeerLink> small_;
  std::vector<std::unique_ptr<Direction>> directions_;
};

}  // namespace

std::unique_ptr<Transport> MakeQueuedTransport(PathKind mechanism, PathKind stands_for,
                                               std::span<const std::unique_ptr<Device>> devices,
                                               Device& host, SmallByKernel small) {
  Check(stands_for != PathKind::kAuto, "transport: a path is resolved before it is made");
  if (mechanism == PathKind::kCopy) return std::make_unique<CopyEngine>(stands_for);
  if (mechanism == PathKind::kHostStaged) {
    return std::make_unique<HostStaged>(stands_for, host, devices, std::move(small));
  }
  Fail(ErrorCode::kUnsupported,
       fmt::format("link: no transport {} made of queues alone (have: copy, host_staged); name one "
                   "of these with --path",
                   ToString(mechanism)));
}

}  // namespace tandem
