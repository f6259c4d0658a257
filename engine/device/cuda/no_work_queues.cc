#include "engine/device/cuda/work_queues.h"

namespace tandem {

void AppendWorkQueues(CUdevice, decltype(&cuDeviceGetDevResource), std::vector<CUdevResource>&) {}

}  // namespace tandem
