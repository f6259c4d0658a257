// The CPU's roofs as a DeviceProbe: the loops of HostProbe, copies by the thread team, and the
// entering of a parallel region as what a launch is.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/device/cpu/thread_pool.h"
#include "kernels/device_probe.h"

namespace tandem {

// The team works for `sharers` devices, which take turns: each is given its part of the rates.
// `pool` outlives the probe.
std::unique_ptr<DeviceProbe> MakeHostDeviceProbe(ThreadPool& pool, uint32_t sharers);

}  // namespace tandem
