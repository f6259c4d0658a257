#include "engine/link/staging_ring.h"

#include <algorithm>

#include "engine/base/check.h"

namespace tandem {

StagingRing::StagingRing(Device& host, Device& device, CopyTeam& team, uint32_t chunks,
                         uint64_t chunk_bytes)
    : team_(team),
      fill_(*device.queue(QueueRole::kFill)),
      chunk_bytes_(chunk_bytes),
      memory_(host.Allocate(MemoryUse::kWorkspace, Bytes{chunks * chunk_bytes}, "fetch ring")),
      chunks_(chunks) {
  Check(chunks >= 2 && chunk_bytes > 0, "staging ring: at least two chunks, of some size");
  for (size_t i = 0; i < chunks_.size(); ++i) {
    chunks_[i].data = memory_.data() + i * chunk_bytes;
    chunks_[i].filled = fill_.MakeEvent();
    chunks_[i].emptied = device.queue(QueueRole::kCopyIn)->MakeEvent();
  }
}

void StagingRing::Copy(const CopyTask& task, PathKind path, TrafficLedger& ledger) {
  if (task.bytes() == 0) return;
  CheckCopyTask(task);
  Check(task.rows == 1 && task.dst_queue != nullptr,
        "staging ring: one run of bytes into a queue of the device");
  DeviceQueue& copy = *task.dst_queue;
  for (uint64_t done = 0; done < task.row_bytes; done += chunk_bytes_) {
    const Chunk& chunk = chunks_[next_];
    next_ = (next_ + 1) % chunks_.size();
    const uint64_t bytes = std::min(chunk_bytes_, task.row_bytes - done);
    fill_.WaitFor(*chunk.emptied);
    fill_.Call([&team = team_, to = chunk.data, from = task.from + done, bytes] {
      team.Copy(to, from, bytes);
    });
    fill_.Mark(*chunk.filled);
    copy.WaitFor(*chunk.filled);
    copy.Copy(QueueCopy{.to = task.to + done, .from = chunk.data, .row_bytes = bytes});
    copy.Mark(*chunk.emptied);
  }
  ledger.Book(kHost, kHost, PathKind::kLocal, Bytes{task.bytes() - task.padding_bytes});
  ledger.Book(task.src, task.dst, path, Bytes{task.bytes() - task.padding_bytes});
}

}  // namespace tandem
