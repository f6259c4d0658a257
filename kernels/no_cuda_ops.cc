#include "engine/base/error.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/share_probe.h"

namespace tandem {
namespace {

[[noreturn]] void Refuse() {
  Fail(ErrorCode::kUnsupported,
       "kernels: this tandem was built without CUDA, so it has no CUDA kernels (want a build with "
       "nvcc, CUDA 13; tools/quickstart brings it); or use --devices cpu");
}

}  // namespace

std::unique_ptr<Ops> MakeCudaOps(const CudaOpsOptions&) { Refuse(); }

ShareBandwidth MeasureShares(int, std::span<const std::shared_ptr<GpuPart>>) { Refuse(); }

bool PartsRunTogether(int, std::span<const std::shared_ptr<GpuPart>>) { Refuse(); }

std::vector<uint32_t> MultiprocessorsOf(int, const std::shared_ptr<GpuPart>&) { Refuse(); }

}  // namespace tandem
