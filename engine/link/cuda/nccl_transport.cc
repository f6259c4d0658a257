#include "engine/link/cuda/nccl_transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/link/cuda/nccl_calls.h"
#include "engine/link/cuda/nccl_watch.h"
#include "engine/link/cuda/nccl_windows.h"

namespace tandem {
namespace {

class NcclTransport final : public Transport {
 public:
  explicit NcclTransport(const NcclSetup& setup) : comms_(setup.gpus), watch_(comms_, setup.bound) {
    if (!setup.windows) return;
    std::string why;
    sums_ = MakeNcclWindowSums(comms_, watch_, setup.wire_ops, why);
    windows_ = sums_ != nullptr ? "granted" : fmt::format("refused ({})", why);
  }

  PathKind mechanism() const override { return PathKind::kNccl; }
  PathKind path() const override { return PathKind::kNccl; }
  DirectCollectives* direct() override { return sums_.get(); }
  std::string windows() const override { return windows_; }
  std::string detail() const override { return fmt::format("windows {}", windows_); }

  void Copy(const CopyTask& task, TrafficLedger& ledger) override {
    CopyAll(std::span(&task, 1), ledger);
  }

  // A send and its receive are in the queues of their ends, which is all the order there is to
  // keep.
  void CopyAll(std::span<const CopyTask> tasks, TrafficLedger& ledger) override {
    std::vector<NcclEnd> ends;
    for (const CopyTask& task : tasks) {
      if (task.bytes() == 0) continue;
      CheckCopyTask(task);
      Check(task.src_queue != nullptr && task.dst_queue != nullptr,
            "transport: nccl joins two devices with queues");
      ends.push_back({task.src, task.src_queue->native()});
      ends.push_back({task.dst, task.dst_queue->native()});
    }
    if (ends.empty()) return;
    watch_.Launch(ledger.op(), ends, [&] {
      for (const CopyTask& task : tasks) {
        if (task.bytes() > 0) Ask(task);
      }
    });
    for (const CopyTask& task : tasks) {
      if (task.bytes() == 0) continue;
      ledger.Book(task.src, task.dst, PathKind::kNccl, Bytes{task.bytes() - task.padding_bytes});
    }
  }

  std::optional<TransportFailure> TakeFailure() override { return watch_.TakeFailure(); }

 private:
  void Ask(const CopyTask& task) {
    for (uint64_t row = 0; row < task.rows; ++row) {
      CheckNccl(
          ncclSend(task.from + row * task.src_stride, task.row_bytes, ncclInt8, task.dst.value,
                   CommOf(task.src), static_cast<cudaStream_t>(task.src_queue->native())),
          "send");
      CheckNccl(ncclRecv(task.to + row * task.dst_stride, task.row_bytes, ncclInt8, task.src.value,
                         CommOf(task.dst), static_cast<cudaStream_t>(task.dst_queue->native())),
                "receive");
    }
  }

  ncclComm_t CommOf(DeviceId id) const { return comms_.of(static_cast<size_t>(id.value)); }

  NcclComms comms_;  // by DeviceId, which is the rank
  NcclWatch watch_;
  std::unique_ptr<DirectCollectives> sums_;
  std::string windows_ = "off";
};

}  // namespace

std::unique_ptr<Transport> MakeNcclTransport(const NcclSetup& setup) {
  std::vector<int> sorted(setup.gpus.begin(), setup.gpus.end());
  std::sort(sorted.begin(), sorted.end());
  if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end()) {
    Fail(ErrorCode::kUnsupported,
         fmt::format(
             "link: path nccl: cuda:{} stands for two devices, and NCCL takes one rank a GPU; "
             "name another path: --path copy, host_staged",
             *twice));
  }
  return std::make_unique<NcclTransport>(setup);
}

}  // namespace tandem
