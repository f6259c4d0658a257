#include "engine/base/error.h"
#include "kernels/cuda/cuda_ops.h"

namespace tandem {

std::unique_ptr<Ops> MakeCudaOps(const CudaOpsOptions&) {
  Fail(ErrorCode::kUnsupported,
       "kernels: this tandem was built without CUDA, so it has no CUDA kernels (want a build with "
       "nvcc, CUDA 13; tools/quickstart brings it); or use --devices cpu");
}

}  // namespace tandem
