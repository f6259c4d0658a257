// The memory table as JSON: one object a device (and the host), in bytes. Others script against
// these names: `tandem plan show --json`, /props and the records all use them.
#pragma once

#include <nlohmann/json.hpp>

#include "engine/plan/memory.h"

namespace tandem {

nlohmann::json MemoryJson(const MemoryTable& memory);

}  // namespace tandem
