#include "engine/base/error.h"
#include "engine/run/backend.h"
#include "engine/run/gpu_share.h"

namespace tandem {
namespace {

[[noreturn]] void Refuse() {
  Fail(ErrorCode::kUnsupported,
       "engine: this tandem was built without kernels for GPUs (want nvcc of CUDA 13 when it is "
       "built: tools/quickstart brings it where a driver is); or name CPU devices: --devices 2");
}

}  // namespace

std::unique_ptr<Backend> MakeCudaBackend(const BackendSetup&) { Refuse(); }

GpuShareProbes ThisMachinesShares() {
  return GpuShareProbes{.cut_of = [](int) -> GpuCut { Refuse(); },
                        .measure = [](int, uint32_t, uint32_t) -> ShareBandwidth { Refuse(); },
                        .run_together = [](int, uint32_t, uint32_t) -> bool { Refuse(); }};
}

}  // namespace tandem
