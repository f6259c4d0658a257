#include "engine/base/error.h"
#include "engine/run/backend.h"

namespace tandem {

std::unique_ptr<Backend> MakeCudaBackend(const BackendSetup&) {
  Fail(ErrorCode::kUnsupported,
       "engine: this tandem was built without kernels for GPUs (want nvcc of CUDA 13 when it is "
       "built: tools/quickstart brings it where a driver is); or name CPU devices: --devices 2");
}

}  // namespace tandem
