// The CUDA back end as plain C++ on an emulated GPU (tests/support/cuda_emulation).
#include "engine/device/cpu/cpu_device.h"
#include "kernels/cuda/cuda_ops.h"
#include "tests/kernels/kernel_test_support.h"

namespace tandem {

std::vector<std::string> Tiers() { return {"cuda_emulated"}; }

std::vector<AttentionPrecision> AttentionPrecisions() {
  return {AttentionPrecision::kSplit, AttentionPrecision::kHalf};
}
// Of the CPU's; cards have one.
std::vector<KeyOrder> KeyOrders() { return {KeyOrder::kByColumn}; }

Bench MakeBench(const Backend& backend, int) {
  Bench bench;
  bench.pool = std::make_unique<ThreadPool>(ThreadPoolOptions{.threads = 1});
  bench.device = std::make_unique<CpuDevice>(DeviceId{0}, Bytes{0},
                                             std::make_shared<ThreadPool>(ThreadPoolOptions{1}));
  CudaOpsOptions options{.activations = backend.activations,
                         .attention = backend.attention,
                         .memory = bench.device.get()};
  if (backend.library != nullptr) {
    options.prefill_products = PrefillProducts::kCublasLt;
    options.library = *backend.library;
  }
  bench.ops = MakeCudaOps(options);
  return bench;
}

}  // namespace tandem
