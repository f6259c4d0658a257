// WireOps on GPUs: the kernels of wire.cu, put in the queues they are given. Includes no CUDA
// header.
#pragma once

#include <memory>

#include "engine/link/wire_ops.h"

namespace tandem {

// For the GPU `ordinal`; makes it the thread's current device at each call.
std::unique_ptr<WireOps> MakeCudaWireOps(int ordinal);

}  // namespace tandem
