// The inventory of a binary that was built without the CUDA toolkit.
#include "engine/device/inventory.h"

namespace tandem {

GpuInventory FindGpus() {
  GpuInventory inventory;
  inventory.driver_message = "built without CUDA: CPU devices only";
  return inventory;
}

}  // namespace tandem
