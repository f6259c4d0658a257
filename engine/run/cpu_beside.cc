#include "engine/run/cpu_beside.h"

#include <utility>

#include "engine/device/cpu/cpu_queue.h"
#include "kernels/queued_ops.h"

namespace tandem {

CpuBeside MakeCpuBeside(const BackendSetup& setup, DeviceId id, Device& page_locked) {
  CpuBeside made;
  const DeviceSpec& spec = setup.rig->devices[static_cast<size_t>(id.value)];
  made.device = MakeQueuedCpuDevice(id, spec.memory, page_locked);
  // KV may move between it and cards.
  BackendSetup host = setup;
  host.ops.key_order = KeyOrder::kByPosition;
  std::unique_ptr<Ops> ops =
      MakeQueuedOps(MakeHostOps(host), *made.device->queue(QueueRole::kCompute));
  made.ops = setup.wrap_ops ? setup.wrap_ops(std::move(ops)) : std::move(ops);
  return made;
}

}  // namespace tandem
