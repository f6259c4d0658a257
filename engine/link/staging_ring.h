// Weights on their way from host memory that is not page-locked to a device: page-locked chunks,
// filled by threads of the host and emptied by the device's copy engine, in turn and in order, so
// that one is filled while others cross. A device copies from page-locked memory alone at the full
// rate of its link; the price here is one more pass over the host's memory, and it is booked, as a
// hop from the host to itself.
//
// Filling goes ahead of the copy's place in its queue, as far as there are empty chunks: the source
// must not change while a copy is under way (weights never do). Two queues of the device take part:
// the task's own and kFill. Nothing here waits on the host, and nothing is allocated after
// construction. One thread.
//
//   StagingRing ring(host, device, team);
//   ring.Copy(task, PathKind::kCopy, ledger);
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/device/cpu/copy_team.h"
#include "engine/device/device.h"
#include "engine/link/transport.h"

namespace tandem {

class StagingRing {
 public:
  // Takes `chunks` chunks of page-locked memory from `host`. All outlive the ring.
  StagingRing(Device& host, Device& device, CopyTeam& team, uint32_t chunks = kFetchRingChunks,
              uint64_t chunk_bytes = kFetchRingBytes / kFetchRingChunks);

  // One run of bytes to the device, through the task's dst_queue; books `path` for the link.
  void Copy(const CopyTask& task, PathKind path, TrafficLedger& ledger);

 private:
  struct Chunk {
    std::byte* data = nullptr;
    std::unique_ptr<DeviceEvent> filled, emptied;
  };

  CopyTeam& team_;
  DeviceQueue& fill_;
  const uint64_t chunk_bytes_;
  Buffer memory_;
  std::vector<Chunk> chunks_;
  size_t next_ = 0;
};

}  // namespace tandem
