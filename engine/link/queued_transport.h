// Transports between devices that work on their own time, made of nothing but their queues: `copy`,
// where one device's copy engine reaches the other's memory, and `host_staged`, two hops through
// buffers in the host's memory, a chunk at a time, both directions of a link and both hops of a
// message side by side. The same code whatever the back end; tests run it on fake devices.
//
// Nothing here waits on the host, and nothing is allocated after construction but the events of a
// queue or a direction seen for the first time.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/device/device.h"
#include "engine/link/peer_kernels.h"
#include "engine/link/transport.h"

namespace tandem {

// Puts one queue's later work behind another's work so far. Keeps an event for each queue.
class QueueChain {
 public:
  // No-op where either is null or both are one.
  void Follow(DeviceQueue* first, DeviceQueue* then);

 private:
  std::vector<std::pair<DeviceQueue*, std::unique_ptr<DeviceEvent>>> events_;
};

// What such transports have in common: first all tasks are put behind earlier work, then they move,
// then later work is put behind them, so that no task waits for another.
class QueuedTransport : public Transport {
 public:
  explicit QueuedTransport(PathKind stands_for, bool recordable = true)
      : stands_for_(stands_for), recordable_(recordable) {}
  PathKind path() const final { return stands_for_; }
  bool recordable() const final { return recordable_; }
  void Copy(const CopyTask& task, TrafficLedger& ledger) final;
  void CopyAll(std::span<const CopyTask> tasks, TrafficLedger& ledger) final;

 protected:
  virtual void Begin(const CopyTask& task) = 0;
  // Puts the copy in its queues, and books it.
  virtual void Move(const CopyTask& task, TrafficLedger& ledger) = 0;
  virtual void End(const CopyTask& task) = 0;

  QueueChain chain_;
  const PathKind stands_for_;

 private:
  const bool recordable_;
};

// Small collectives by kernels through memory of the host, in place of copies (peer_link.h).
struct SmallByKernel {
  std::unique_ptr<PeerKernels> kernels;  // none: all by copies
  // False where devices share a GPU: nothing promises that branches of one recording run side by
  // side there, as kernels that wait for one another must.
  bool recordable = true;
  uint64_t most = uint64_t{1} << 18;  // values of a message
};

// `mechanism` is kCopy or kHostStaged; `stands_for` is what it books. `devices` by DeviceId; `host`
// allocates memory that they reach, of which kHostStaged takes kStagingChunk bytes a direction, in
// two halves, and for `small` what engine/plan/link_memory.h says. Devices and host outlive the
// transport.
std::unique_ptr<Transport> MakeQueuedTransport(PathKind mechanism, PathKind stands_for,
                                               std::span<const std::unique_ptr<Device>> devices,
                                               Device& host, SmallByKernel small = {});

}  // namespace tandem
