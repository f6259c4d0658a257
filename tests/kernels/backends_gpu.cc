// The CUDA back end on the first GPU. The suites keep everything in the host's memory, so each
// call's operands are brought to the GPU, and its results back (staged_ops.h).
#include <cuda_runtime_api.h>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/device/inventory.h"
#include "kernels/cuda/cuda_ops.h"
#include "tests/kernels/kernel_test_support.h"
#include "tests/kernels/staged_ops.h"

namespace tandem {
namespace {

class GpuMemory final : public Device {
 public:
  GpuMemory() : Device(DeviceId{0}, "gpu", Bytes{0}) {}

 private:
  std::byte* AllocateRaw(size_t size) override {
    void* data = nullptr;
    if (cudaMalloc(&data, size) != cudaSuccess) return nullptr;
    Check(cudaMemset(data, 0, size) == cudaSuccess, "gpu test: memset");
    return static_cast<std::byte*>(data);
  }
  void FreeRaw(std::byte* data, size_t) noexcept override { cudaFree(data); }
};

constexpr HostCopies kCopies = {
    .to_gpu =
        [](void* to, const void* from, size_t bytes) {
          Check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice) == cudaSuccess,
                "gpu test: copy");
        },
    .to_host =
        [](void* to, const void* from, size_t bytes) {
          Check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost) == cudaSuccess,
                "gpu test: copy");
        },
};

}  // namespace

std::vector<std::string> Tiers() { return {"cuda"}; }

std::vector<AttentionPrecision> AttentionPrecisions() {
  return {AttentionPrecision::kSplit, AttentionPrecision::kHalf};
}
// Of the CPU's; cards have one.
std::vector<KeyOrder> KeyOrders() { return {KeyOrder::kByColumn}; }

Bench MakeBench(const Backend& backend, int) {
  Bench bench;
  const GpuInventory found = FindGpus();
  if (found.gpus.empty()) {
    bench.missing = "no GPU: " + found.driver_message;
    return bench;
  }
  bench.device = std::make_unique<GpuMemory>();
  // Few multiprocessors, so that small tests meet both sides of the choices that depend on them.
  CudaOpsOptions options{.sm_count = 8,
                         .activations = backend.activations,
                         .attention = backend.attention,
                         .memory = bench.device.get()};
  if (backend.library != nullptr) {
    options.prefill_products = PrefillProducts::kCublasLt;
    options.library = *backend.library;
  }
  // The default stream, with which the copies are in order.
  try {
    bench.ops = MakeStagedOps(MakeCudaOps(options), *bench.device, kCopies);
  } catch (const Error& error) {
    if (backend.library == nullptr || error.code() != ErrorCode::kUnsupported) throw;
    bench.missing = error.what();
  }
  return bench;
}

}  // namespace tandem
