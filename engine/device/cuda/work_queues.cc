#include "engine/device/cuda/work_queues.h"

namespace tandem {

void AppendWorkQueues(CUdevice device, decltype(&cuDeviceGetDevResource) resource_of,
                      std::vector<CUdevResource>& resources) {
  CUdevResource queues{};
  if (resource_of(device, &queues, CU_DEV_RESOURCE_TYPE_WORKQUEUE_CONFIG) != CUDA_SUCCESS) return;
  queues.wqConfig.sharingScope = CU_WORKQUEUE_SCOPE_GREEN_CTX_BALANCED;
  resources.push_back(queues);
}

}  // namespace tandem
