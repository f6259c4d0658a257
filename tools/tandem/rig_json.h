// Rigs, what was measured of them, and GPUs that were found, as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include "engine/device/inventory.h"
#include "engine/rig/measurements.h"
#include "engine/rig/rig.h"

namespace tandem {

nlohmann::json RigJson(const Rig& rig);  // with its measurements, where it has some
nlohmann::json InventoryJson(const GpuInventory& inventory);

}  // namespace tandem
