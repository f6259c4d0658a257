// Every block's units shared out over all devices: each device computes a partial of every block,
// and an all-reduce makes it whole. Embedding and head are split by vocabulary.
#include "tandem/plugin.hpp"

namespace {

using tandem::plugin::Draft;
using tandem::plugin::Values;

void Plan(Draft& d) {
  for (uint32_t b = 0; b < d.n_blocks(); ++b) {
    for (int32_t device = 0; device < d.n_devices(); ++device) {
      d.Place(b, d.part(b, device), device);
    }
  }
  for (uint32_t program : tandem::plugin::kPrograms) {
    d.Program(program);
    Values x = d.TensorEmbed();
    for (uint32_t layer = 0; layer < d.n_layers(); ++layer) x = d.TensorLayer(layer, x);
    d.TensorFinish(x);
  }
}

}  // namespace

extern "C" TANDEM_EXPORT const tandem_plugin* tandem_plugin_entry_v1(void) {
  return tandem::plugin::Define<Plan>(
      {.name = "tensor_split",
       .version = "0.1.0",
       .summary = "Every block split over all devices, with an all-reduce after each."});
}
