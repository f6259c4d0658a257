// The arithmetic of links, on the device where the values lie: what wire.h defines, once more for
// memory that the host does not reach. One implementation a back end. A device's work is put in the
// given queue and done in its order; where there is none (null) it is done on return.
//
// Every implementation gives the bits of wire.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/device/queue.h"
#include "engine/plan/plan.h"

namespace tandem {

class WireOps {
 public:
  virtual ~WireOps() = default;
  virtual void Encode(DeviceQueue* queue, WireType wire, const float* x, uint64_t n,
                      std::byte* out) = 0;
  virtual void Decode(DeviceQueue* queue, WireType wire, const std::byte* in, uint64_t n,
                      float* y) = 0;
  virtual void DecodeAdd(DeviceQueue* queue, WireType wire, const std::byte* in, uint64_t n,
                         float* y) = 0;
  virtual void Round(DeviceQueue* queue, WireType wire, const float* x, uint64_t n, float* y) = 0;
  // `rows` runs of `width` floats, strides in floats.
  virtual void CopyRows(DeviceQueue* queue, const float* from, uint64_t from_stride, float* to,
                        uint64_t to_stride, uint64_t width, uint64_t rows) = 0;
};

// For memory of the host, and of CPU devices. No state.
WireOps& HostWireOps();
// The same in the queues of the host's processor.
WireOps& QueuedHostWireOps();

}  // namespace tandem
