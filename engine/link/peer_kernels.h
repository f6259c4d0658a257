// The kernels of peer links as the host asks for them: on the given device, which is made current,
// in the given queue of it. CUDA's are in cuda/peer_kernels.h; tests launch the emulated ones.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/device/queue.h"
#include "engine/link/peer_layout.h"
#include "engine/plan/plan.h"

namespace tandem {

class PeerKernels {
 public:
  virtual ~PeerKernels() = default;
  // `channels` blocks, the same number for all kernels of one message.
  virtual void Reduce(size_t device, DeviceQueue& queue, WireType wire, peer::Way way,
                      uint32_t channels, const peer::ReduceArgs& args) = 0;
  // `blocks` of args.row_channels channels each, likewise.
  virtual void ReduceRows(size_t device, DeviceQueue& queue, WireType wire, uint32_t blocks,
                          const peer::RowsArgs& args) = 0;
  virtual void Send(size_t device, DeviceQueue& queue, WireType wire, peer::Way way,
                    uint32_t channels, const peer::SendArgs& args) = 0;
  virtual void Receive(size_t device, DeviceQueue& queue, WireType wire, peer::Way way,
                       uint32_t channels, const peer::SendArgs& args) = 0;
  virtual void Copy(size_t device, DeviceQueue& queue, const peer::CopyArgs& args) = 0;
  virtual void Litmus(size_t device, DeviceQueue& queue, uint32_t blocks, uint32_t threads,
                      const peer::LitmusArgs& args) = 0;
};

}  // namespace tandem
