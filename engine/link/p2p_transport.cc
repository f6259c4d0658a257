#include "engine/link/p2p_transport.h"

#include <fmt/format.h>

#include <utility>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/link/peer_probe.h"
#include "engine/link/queued_transport.h"
#include "engine/plan/link_memory.h"

namespace tandem {
namespace {

// What is tried: a decode row, and what keeps every channel busy for several chunks.
constexpr uint64_t kProbeWords = 4096;
constexpr uint64_t kProbeBlocks = peer::kBlocksElems * peer::kChannels * 2;
// Of each device, given and got.
static_assert(2 * kProbeBlocks * sizeof(float) <= kPeerProbe && kProbeWords <= kProbeBlocks);
constexpr Nanos kProbeBound{int64_t{2'000'000'000}};

struct Places {
  PeerPlace words = PeerPlace::kPush;
  PeerPlace blocks = PeerPlace::kPush;
};

// The time of one size one way, or why there is none.
struct Attempt {
  std::optional<Nanos> time;
  std::string why;
};

Attempt Try(PeerPlace place, uint64_t n, std::span<const std::unique_ptr<Device>> devices,
            Device& host, PeerKernels& kernels) {
  PeerLink link(PeerLinkOptions{.words = place, .blocks = place, .bound = kProbeBound}, devices,
                host, kernels);
  Attempt attempt;
  try {
    attempt.time = TimeAllReduce(link, devices, n);
  } catch (const Error& error) {
    attempt.why = error.what();
  }
  return attempt;
}

PeerPlace Choose(uint64_t n, std::span<const std::unique_ptr<Device>> devices, Device& host,
                 PeerKernels& kernels) {
  const Attempt push = Try(PeerPlace::kPush, n, devices, host, kernels);
  const Attempt pull = Try(PeerPlace::kPull, n, devices, host, kernels);
  if (!push.time && !pull.time) {
    Fail(ErrorCode::kDevice,
         fmt::format("link: path p2p: neither stores to a peer's memory nor loads from it deliver "
                     "(push: {}; pull: {}); name another path: --path host_staged, nccl, copy",
                     push.why, pull.why));
  }
  if (!pull.time) return PeerPlace::kPush;
  if (!push.time) return PeerPlace::kPull;
  return *pull.time < *push.time ? PeerPlace::kPull : PeerPlace::kPush;
}

class P2p final : public QueuedTransport {
 public:
  P2p(const P2pOptions& options, const Places& places,
      std::span<const std::unique_ptr<Device>> devices, Device& host,
      std::unique_ptr<PeerKernels> kernels)
      : QueuedTransport(PathKind::kP2p, options.recordable),
        kernels_(std::move(kernels)),
        shape_(options.shape),
        link_(PeerLinkOptions{.words = places.words,
                              .blocks = places.blocks,
                              .bound = options.bound,
                              .shape = options.shape},
              devices, host, *kernels_) {}

  PathKind mechanism() const override { return PathKind::kP2p; }
  DirectCollectives* direct() override { return &link_; }
  std::optional<TransportFailure> TakeFailure() override { return link_.TakeFailure(); }
  std::string detail() const override {
    const PeerPlace words = link_.options().words, blocks = link_.options().blocks;
    std::string text = ToString(words);
    if (words != blocks) text += fmt::format(" small, {} large", ToString(blocks));
    if (shape_ != nullptr) text += fmt::format(", as link {}", shape_->link.name);
    return text;
  }

 private:
  bool pulls() const { return link_.options().blocks == PeerPlace::kPull; }
  DeviceQueue* Carrier(const CopyTask& task) const {
    return pulls() ? task.dst_queue : task.src_queue;
  }

  void Begin(const CopyTask& task) override {
    Check(task.src_queue != nullptr && task.dst_queue != nullptr,
          "transport: p2p joins two devices with queues");
    chain_.Follow(pulls() ? task.src_queue : task.dst_queue, Carrier(task));
  }
  void Move(const CopyTask& task, TrafficLedger& ledger) override {
    const Bytes booked{task.bytes() - task.padding_bytes};
    peer::CopyArgs args{.to = task.to,
                        .to_stride = task.dst_stride,
                        .from = task.from,
                        .from_stride = task.src_stride,
                        .row_bytes = task.row_bytes,
                        .rows = task.rows};
    if (shape_ != nullptr) {
      args.shaped_nanos = static_cast<uint64_t>(shape_->HopTime(task.src, task.dst, booked).value);
    }
    const DeviceId device = pulls() ? task.dst : task.src;
    kernels_->Copy(static_cast<size_t>(device.value), *Carrier(task), args);
    ledger.Book(task.src, task.dst, stands_for_, booked);
  }
  void End(const CopyTask& task) override {
    chain_.Follow(Carrier(task), pulls() ? task.src_queue : task.dst_queue);
  }

  const std::unique_ptr<PeerKernels> kernels_;
  const Rig* const shape_;
  PeerLink link_;
};

}  // namespace

const char* ToString(P2pWay way) {
  switch (way) {
    case P2pWay::kAuto:
      return "auto";
    case P2pWay::kPush:
      return ToString(PeerPlace::kPush);
    case P2pWay::kPull:
      return ToString(PeerPlace::kPull);
  }
  return "auto";
}

std::optional<P2pWay> P2pWayFromName(std::string_view name) {
  for (P2pWay way : {P2pWay::kAuto, P2pWay::kPush, P2pWay::kPull}) {
    if (name == ToString(way)) return way;
  }
  return std::nullopt;
}

std::unique_ptr<Transport> MakeP2pTransport(const P2pOptions& options,
                                            std::span<const std::unique_ptr<Device>> devices,
                                            Device& host, std::unique_ptr<PeerKernels> kernels) {
  Places places;
  if (options.way != P2pWay::kAuto) {
    const PeerPlace place = options.way == P2pWay::kPush ? PeerPlace::kPush : PeerPlace::kPull;
    places = {place, place};
  } else {
    places = {Choose(kProbeWords, devices, host, *kernels),
              Choose(kProbeBlocks, devices, host, *kernels)};
  }
  return std::make_unique<P2p>(options, places, devices, host, std::move(kernels));
}

}  // namespace tandem
