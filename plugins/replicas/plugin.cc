// A whole copy of the model on every device, each serving its own sequences in its own lane.
#include "tandem/plugin.hpp"

namespace {

using tandem::plugin::Draft;

void Plan(Draft& d) {
  for (int32_t device = 0; device < d.n_devices(); ++device) d.PlaceAll(device);
  for (int32_t device = 0; device < d.n_devices(); ++device) {
    for (uint32_t program : tandem::plugin::kPrograms) {
      d.Program(program, {.lane = static_cast<uint32_t>(device)});
      d.WholeChain(device);
    }
  }
}

}  // namespace

extern "C" TANDEM_EXPORT const tandem_plugin* tandem_plugin_entry_v1(void) {
  return tandem::plugin::Define<Plan>(
      {.name = "replicas",
       .version = "0.1.0",
       .summary = "A copy of the model on every device; sequences are dealt out."});
}
