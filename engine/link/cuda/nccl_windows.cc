#include "engine/link/cuda/nccl_windows.h"

#include <fmt/format.h>

#include <cstddef>
#include <vector>

#include "engine/base/check.h"
#include "engine/device/cuda/handles.h"
#include "engine/link/wire.h"

namespace tandem {
namespace {

// What parts of a gather are rounded up to, so that each is aligned for every kernel.
constexpr uint64_t kPartAlign = 16;
constexpr uint64_t RoundUp(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

// A window a rank, of the same size: registered by all ranks in one group, given back in one, and
// freed after.
class Windows {
 public:
  Windows(NcclComms& comms, uint64_t bytes)
      : comms_(comms), making_(comms.making()), windows_(comms.size()) {
    bytes = RoundUp(bytes, NCCL_WIN_REQUIRED_ALIGNMENT);
    for (size_t rank = 0; rank < comms.size(); ++rank) {
      OnDevice current(comms.gpu(rank));
      void* data = nullptr;
      if (!Passed(ncclMemAlloc(&data, bytes), "allocate")) return;
      memory_.push_back(data);
    }
    if (!Passed(ncclGroupStart(), "begin a group")) return;
    ncclResult_t status = ncclSuccess;
    for (size_t rank = 0; rank < comms.size() && status == ncclSuccess; ++rank) {
      status = ncclCommWindowRegister(comms.of(rank), memory_[rank], bytes, &windows_[rank],
                                      NCCL_WIN_COLL_SYMMETRIC);
    }
    // The handles are there when the group has ended, whatever became of its calls.
    const ncclResult_t ended = ncclGroupEnd();
    in_doubt_ = !Passed(status, "register") || !Passed(ended, "register");
    for (ncclWindow_t window : windows_) {
      if (window == nullptr && why_.empty()) {
        why_ = "NCCL gives none for these GPUs; NCCL_DEBUG=INFO may say more";
      }
    }
  }
  // Destroys the communicators where they are in doubt.
  ~Windows() {
    // A call that fails here leaves nothing to do about it.
    if (in_doubt_) {
      comms_.Destroy();
    } else if (good()) {
      ncclGroupStart();
      for (size_t rank = 0; rank < windows_.size(); ++rank) {
        if (windows_[rank] != nullptr) ncclCommWindowDeregister(comms_.of(rank), windows_[rank]);
      }
      ncclGroupEnd();
    }
    for (size_t rank = 0; rank < memory_.size(); ++rank) {
      OnDevice current(comms_.gpu(rank));
      ncclMemFree(memory_[rank]);
    }
  }
  Windows(const Windows&) = delete;
  Windows& operator=(const Windows&) = delete;

  const std::string& why() const { return why_; }  // empty where they are granted
  bool in_doubt() const { return in_doubt_; }
  // Whether the communicators are still those that they were registered with.
  bool good() const { return comms_.making() == making_; }
  std::byte* of(size_t rank) const { return static_cast<std::byte*>(memory_[rank]); }

 private:
  bool Passed(ncclResult_t status, const char* what) {
    if (status == ncclSuccess) return true;
    if (why_.empty()) why_ = fmt::format("{}: {}", what, NcclMessage(status));
    return false;
  }

  NcclComms& comms_;
  const uint32_t making_;
  std::vector<void*> memory_;          // by rank
  std::vector<ncclWindow_t> windows_;  // by rank
  bool in_doubt_ = false;
  std::string why_;
};

class WindowSums final : public DirectCollectives {
 public:
  WindowSums(NcclComms& comms, NcclWatch& watch, std::span<const std::unique_ptr<WireOps>> wire_ops,
             std::unique_ptr<Windows> windows)
      : comms_(comms), watch_(watch), wire_ops_(wire_ops), windows_(std::move(windows)) {}

  bool TakesAllReduce(WireType wire, uint64_t n, size_t ranks) const override {
    return windows_->good() && ranks == comms_.size() && n > 0 &&
           WireBytes(wire, n).value <= kMostWindowBytes;
  }

  // A window holds the own part, then all parts by rank, at the same offsets on every rank.
  void AllReduce(WireType wire, std::span<const DirectEnd> ranks, uint64_t n,
                 TrafficLedger& ledger) override {
    const uint64_t part = RoundUp(WireBytes(wire, n).value, kPartAlign);
    for (const DirectEnd& end : ranks) {
      OpsOf(end).Encode(end.queue, wire, end.in, n, windows_->of(RankOf(end)));
    }
    std::vector<NcclEnd> ends;
    for (const DirectEnd& end : ranks) ends.push_back({end.device, end.queue->native()});
    watch_.Launch(ledger.op(), ends, [&] {
      for (const DirectEnd& end : ranks) {
        std::byte* const own = windows_->of(RankOf(end));
        CheckNccl(ncclAllGather(own, own + kMostWindowBytes, part, ncclInt8, comms_.of(RankOf(end)),
                                static_cast<cudaStream_t>(end.queue->native())),
                  "gather");
      }
    });
    for (const DirectEnd& end : ranks) {
      const std::byte* const parts = windows_->of(RankOf(end)) + kMostWindowBytes;
      for (const DirectEnd& from : ranks) {
        const std::byte* const in = parts + RankOf(from) * part;
        if (&from == &ranks[0]) {
          OpsOf(end).Decode(end.queue, wire, in, n, end.out);
        } else {
          OpsOf(end).DecodeAdd(end.queue, wire, in, n, end.out);
        }
        if (&from != &end) {
          ledger.Book(from.device, end.device, PathKind::kNccl, WireBytes(wire, n));
        }
      }
    }
  }

  void AllReduceRows(WireType, std::span<const DirectEnd>, std::span<const DirectRows>,
                     const DirectRowsShape&, TrafficLedger&) override {
    Check(false, "nccl windows: takes nothing along");
  }
  bool TakesSend(WireType, uint64_t) const override { return false; }
  void Send(WireType, const DirectEnd&, const DirectEnd&, uint64_t, TrafficLedger&) override {
    Check(false, "nccl windows: sends are the transport's");
  }

 private:
  static size_t RankOf(const DirectEnd& end) { return static_cast<size_t>(end.device.value); }
  WireOps& OpsOf(const DirectEnd& end) const { return *wire_ops_[RankOf(end)]; }

  NcclComms& comms_;
  NcclWatch& watch_;
  const std::span<const std::unique_ptr<WireOps>> wire_ops_;
  const std::unique_ptr<Windows> windows_;
};

}  // namespace

std::unique_ptr<DirectCollectives> MakeNcclWindowSums(
    NcclComms& comms, NcclWatch& watch, std::span<const std::unique_ptr<WireOps>> wire_ops,
    std::string& why) {
  auto windows = std::make_unique<Windows>(comms, kMostWindowBytes * (1 + comms.size()));
  why = windows->why();
  if (!why.empty()) {
    const bool in_doubt = windows->in_doubt();
    windows.reset();
    if (in_doubt) comms.Make();
    return nullptr;
  }
  return std::make_unique<WindowSums>(comms, watch, wire_ops, std::move(windows));
}

}  // namespace tandem
