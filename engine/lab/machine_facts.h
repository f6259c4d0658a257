// What the machine and its GPUs say of themselves, for the rig probe: nothing here is timed.
#pragma once

#include <string>
#include <vector>

#include "engine/device/gpu_monitor.h"
#include "engine/device/inventory.h"
#include "engine/rig/measurements.h"

namespace tandem {

// Processor, memory, kernel; and of GPUs the driver.
std::vector<MachineFact> FactsOfMachine(const GpuInventory& found, GpuMonitor* monitor);
// Names, limits and NVLinks of the GPUs behind the devices, and what the driver grants and NVML
// says for each ordered pair of different ones. `gpus` by device, in CUDA's numbering.
std::vector<MachineFact> FactsOfGpus(const GpuInventory& found, const std::vector<int>& gpus,
                                     GpuMonitor& monitor);
// Of one device while it copies from the host (slot), and while it multiplies (clocks, power).
std::vector<MachineFact> SlotFacts(const std::string& of, const GpuState& under_load);
std::vector<MachineFact> ClockFacts(const std::string& of, const GpuState& under_load);

// The PCI bus ids of the devices' GPUs; empty ones where the inventory lacks them.
std::vector<std::string> BusIds(const GpuInventory& found, const std::vector<int>& gpus);

}  // namespace tandem
