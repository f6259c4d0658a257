// The host's processor as one device of a plan, beside cards: a device with queues, the CPU's
// kernels behind its compute queue, the host's arithmetic of links behind the others. For the back
// ends whose other devices are cards; steps that it takes part in are never recorded.
#pragma once

#include <memory>

#include "engine/run/backend.h"

namespace tandem {

struct CpuBeside {
  std::unique_ptr<Device> device;
  std::unique_ptr<Ops> ops;  // goes before the device
};

// Device `id` of the set-up's rig. `page_locked` is the host's memory that cards reach, and
// outlives the result.
CpuBeside MakeCpuBeside(const BackendSetup& setup, DeviceId id, Device& page_locked);

}  // namespace tandem
