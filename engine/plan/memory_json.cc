#include "engine/plan/memory_json.h"

#include "engine/base/device_name.h"

namespace tandem {

nlohmann::json MemoryJson(const MemoryTable& memory) {
  nlohmann::json rows = nlohmann::json::array();
  for (const MemoryRow& row : memory.rows) {
    rows.push_back({{"device", DeviceName(row.device)},
                    {"weights", row.weights.value},
                    {"slots", row.slots.value},
                    {"kv", row.kv.value},
                    {"activations", row.activations.value},
                    {"workspace", row.workspace.value},
                    {"links", row.links.value},
                    {"capacity", row.capacity.value}});
  }
  return rows;
}

}  // namespace tandem
