// A first plugin: layer l on device l modulo the number of devices, so that the residual stream
// crosses the link at every layer. Slow on purpose; a place to start from.
#include "tandem/plugin.hpp"

namespace {

using tandem::plugin::Draft;
using tandem::plugin::Value;

// Where a block lives. `stride` is this plugin's knob: layers in a row on one device.
int32_t Home(const Draft& d, uint32_t block, int64_t stride) {
  if (block == 0 || block == d.head()) return 0;
  return static_cast<int32_t>(d.block(block).layer / stride % d.n_devices());
}

void Plan(Draft& d) {
  const int64_t stride = d.IntKnob("stride", 1, 1000);
  // Every weight has a place.
  for (uint32_t b = 0; b < d.n_blocks(); ++b) d.Place(b, d.all(b), Home(d, b, stride));
  // Prefill and decode do the same here; they need not.
  for (uint32_t program : tandem::plugin::kPrograms) {
    d.Program(program);
    Value x = d.RunEmbed(d.all(0), 0);
    for (uint32_t b = 1; b < d.head(); ++b) {
      x = d.Transfer(x, Home(d, b, stride));
      x = d.Step(b, x);
    }
    d.Finish(d.Transfer(x, 0));
  }
}

}  // namespace

extern "C" TANDEM_EXPORT const tandem_plugin* tandem_plugin_entry_v1(void) {
  return tandem::plugin::Define<Plan>(
      {.name = "alternate",
       .version = "1.0.0",
       .summary = "Layers dealt out to the devices in turn: the most crossings a chain can make.",
       .knobs = {{"stride", TANDEM_KNOB_INT, "1", {"1", "2"}, "Layers in a row on one device."}}});
}
