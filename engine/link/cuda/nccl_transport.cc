#include "engine/link/cuda/nccl_transport.h"

#include <fmt/format.h>
#include <nccl.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/device/cuda/handles.h"

namespace tandem {
namespace {

void CheckNccl(ncclResult_t status, const std::string& what) {
  if (status == ncclSuccess || status == ncclInProgress) return;
  std::string last;
  if (const char* text = ncclGetLastError(nullptr); text != nullptr) last = text;
  Fail(ErrorCode::kDevice,
       fmt::format("link: path nccl: {}: {}{}{}; NCCL_DEBUG=INFO says more, --path names another",
                   what, ncclGetErrorString(status), last.empty() ? "" : ": ", last));
}

class NcclTransport final : public Transport {
 public:
  explicit NcclTransport(std::span<const int> gpus) : comms_(gpus.size(), nullptr) {
    CheckNccl(ncclCommInitAll(comms_.data(), static_cast<int>(gpus.size()), gpus.data()),
              "make communicators");
  }
  ~NcclTransport() override {
    for (ncclComm_t comm : comms_) {
      if (comm != nullptr) ncclCommDestroy(comm);
    }
  }
  NcclTransport(const NcclTransport&) = delete;
  NcclTransport& operator=(const NcclTransport&) = delete;

  PathKind mechanism() const override { return PathKind::kNccl; }
  PathKind path() const override { return PathKind::kNccl; }

  void Copy(const CopyTask& task, TrafficLedger& ledger) override {
    CopyAll(std::span(&task, 1), ledger);
  }

  // A send and its receive are in the queues of their ends, which is all the order there is to
  // keep.
  void CopyAll(std::span<const CopyTask> tasks, TrafficLedger& ledger) override {
    CheckNccl(ncclGroupStart(), "begin a group");
    for (const CopyTask& task : tasks) {
      if (task.bytes() > 0) Ask(task);
    }
    CheckNccl(ncclGroupEnd(), "launch a group");
    for (const CopyTask& task : tasks) {
      if (task.bytes() == 0) continue;
      ledger.Book(task.src, task.dst, PathKind::kNccl, Bytes{task.bytes() - task.padding_bytes});
    }
  }

 private:
  void Ask(const CopyTask& task) {
    CheckCopyTask(task);
    Check(task.src_queue != nullptr && task.dst_queue != nullptr,
          "transport: nccl joins two devices with queues");
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

  ncclComm_t CommOf(DeviceId id) const { return comms_[static_cast<size_t>(id.value)]; }

  std::vector<ncclComm_t> comms_;  // by DeviceId, which is the rank
};

}  // namespace

std::unique_ptr<Transport> MakeNcclTransport(std::span<const int> gpus) {
  std::vector<int> sorted(gpus.begin(), gpus.end());
  std::sort(sorted.begin(), sorted.end());
  if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end()) {
    Fail(ErrorCode::kUnsupported,
         fmt::format(
             "link: path nccl: cuda:{} stands for two devices, and NCCL takes one rank a GPU; "
             "name another path: --path copy, host_staged",
             *twice));
  }
  return std::make_unique<NcclTransport>(gpus);
}

}  // namespace tandem
