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

// `mechanism` is kCopy or kHostStaged; `stands_for` is what it books. `devices` by DeviceId; `host`
// allocates memory that they reach, of which kHostStaged takes kStagingChunk bytes a direction, in
// two halves. All outlive the transport.
std::unique_ptr<Transport> MakeQueuedTransport(PathKind mechanism, PathKind stands_for,
                                               std::span<const std::unique_ptr<Device>> devices,
                                               Device& host);

}  // namespace tandem
