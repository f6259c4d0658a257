#include "engine/link/transport.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/error.h"

namespace tandem {
namespace {

class LocalTransport final : public Transport {
 public:
  explicit LocalTransport(PathKind stands_for) : stands_for_(stands_for) {}
  PathKind mechanism() const override { return PathKind::kLocal; }
  PathKind path() const override { return stands_for_; }

  void Copy(const CopyTask& task, TrafficLedger& ledger) override {
    if (task.bytes() == 0) return;
    CheckCopyTask(task);
    uint64_t moved = 0;
    for (uint64_t row = 0; row < task.rows; ++row) {
      std::memcpy(task.to + row * task.dst_stride, task.from + row * task.src_stride,
                  task.row_bytes);
      moved += task.row_bytes;
    }
    ledger.Book(task.src, task.dst, stands_for_, Bytes{moved - task.padding_bytes});
  }

 private:
  PathKind stands_for_;
};

// Two real hops, device to host and host to device, a chunk at a time.
class HostStagedTransport final : public Transport {
 public:
  explicit HostStagedTransport(Device& host)
      : staging_(host.Allocate(MemoryUse::kWorkspace, Bytes{kStagingChunk}, "link staging")) {}
  PathKind mechanism() const override { return PathKind::kHostStaged; }
  PathKind path() const override { return PathKind::kHostStaged; }

  void Copy(const CopyTask& task, TrafficLedger& ledger) override {
    if (task.bytes() == 0) return;
    CheckCopyTask(task);
    uint64_t up = 0;
    uint64_t down = 0;
    for (uint64_t row = 0; row < task.rows; ++row) {
      const std::byte* from = task.from + row * task.src_stride;
      std::byte* to = task.to + row * task.dst_stride;
      for (uint64_t done = 0; done < task.row_bytes; done += kStagingChunk) {
        const uint64_t chunk = std::min(kStagingChunk, task.row_bytes - done);
        std::memcpy(staging_.data(), from + done, chunk);
        up += chunk;
        std::memcpy(to + done, staging_.data(), chunk);
        down += chunk;
      }
    }
    ledger.Book(task.src, kHost, PathKind::kHostStaged, Bytes{up - task.padding_bytes});
    ledger.Book(kHost, task.dst, PathKind::kHostStaged, Bytes{down - task.padding_bytes});
  }

 private:
  Buffer staging_;
};

}  // namespace

void Transport::CopyAll(std::span<const CopyTask> tasks, TrafficLedger& ledger) {
  for (const CopyTask& task : tasks) Copy(task, ledger);
}

void CheckCopyTask(const CopyTask& task) {
  Check(task.from != nullptr && task.to != nullptr, "transport: null buffer");
  Check(task.rows == 1 || (task.src_stride >= task.row_bytes && task.dst_stride >= task.row_bytes),
        "transport: rows overlap");
  Check(task.padding_bytes <= task.bytes(), "transport: more padding than bytes");
}

PathKind CpuMechanism(PathKind path) {
  return path == PathKind::kHostStaged ? PathKind::kHostStaged : PathKind::kLocal;
}

std::unique_ptr<Transport> MakeTransport(PathKind mechanism, PathKind stands_for, Device* host) {
  Check(stands_for != PathKind::kAuto, "transport: a path is resolved before it is made");
  if (mechanism == PathKind::kLocal) return std::make_unique<LocalTransport>(stands_for);
  if (mechanism == PathKind::kHostStaged) {
    Check(host != nullptr, "transport: host_staged needs the host's memory");
    return std::make_unique<HostStagedTransport>(*host);
  }
  Fail(ErrorCode::kUnsupported,
       fmt::format("link: no transport {} on CPU devices (have: local, host_staged); leave out "
                   "--path, or name one of these",
                   ToString(mechanism)));
}

}  // namespace tandem
