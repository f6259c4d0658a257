// Queues of a part of a GPU that no other part's work waits in. Two kernels that wait for each
// other must not stand in one queue; toolkits from 13.1 on can ask for queues apart
// (work_queues.cc), with older ones (no_work_queues.cc) the driver's number of connections has to
// do, which the program raises to its most (CUDA_DEVICE_MAX_CONNECTIONS).
//
// For the cuda folder alone: it includes the driver's header.
#pragma once

#include <cuda.h>

#include <vector>

namespace tandem {

// Adds what a green context is described with. A driver that knows no such resource adds nothing.
void AppendWorkQueues(CUdevice device, decltype(&cuDeviceGetDevResource) resource_of,
                      std::vector<CUdevResource>& resources);

}  // namespace tandem
