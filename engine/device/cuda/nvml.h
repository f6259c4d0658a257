// The GpuMonitor that asks NVML. What loads the library's functions is handed in, so that tests
// bring a library of their own; OpenGpuMonitor (gpu_monitor.h) brings the driver's.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "engine/device/gpu_monitor.h"

namespace tandem {

// The address of a function of the library by its C name; null where it lacks it.
using NvmlSymbols = std::function<void*(const char*)>;

// `symbols` stays good for the monitor's life. Where it is empty every reading is `missing`.
std::unique_ptr<GpuMonitor> MakeNvmlMonitor(const NvmlSymbols& symbols, const std::string& missing);

}  // namespace tandem
