// The whole model on device 0: what every other split is compared with.
#include "tandem/plugin.hpp"

namespace {

using tandem::plugin::Draft;

void Plan(Draft& d) {
  d.PlaceAll(0);
  for (uint32_t program : tandem::plugin::kPrograms) {
    d.Program(program);
    d.WholeChain(0);
  }
}

}  // namespace

extern "C" TANDEM_EXPORT const tandem_plugin* tandem_plugin_entry_v1(void) {
  return tandem::plugin::Define<Plan>(
      {.name = "single", .version = "0.1.0", .summary = "The whole model on the first device."});
}
