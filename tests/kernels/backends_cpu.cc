// The oracle and the tiers of the CPU.
#include "engine/base/error.h"
#include "kernels/cpu/cpu_ops.h"
#include "tests/kernels/amx_emulated.h"
#include "tests/kernels/kernel_test_support.h"

namespace tandem {

std::vector<std::string> Tiers() {
  return {"ref", "portable", "avx2", "avx512", "avx512_bf16", "amx", "amx_emulated"};
}

std::vector<AttentionPrecision> AttentionPrecisions() { return {AttentionPrecision::kSplit}; }
std::vector<KeyOrder> KeyOrders() { return {KeyOrder::kByColumn, KeyOrder::kByPosition}; }

Bench MakeBench(const Backend& backend, int threads) {
  Bench bench;
  if (backend.tier == "ref") {
    bench.ops = MakeRefOps(backend.activations);
    return bench;
  }
  const CpuOpsOptions options{
      .activations = backend.activations, .tier = backend.tier, .key_order = backend.keys};
  bench.pool = std::make_unique<ThreadPool>(ThreadPoolOptions{.threads = threads});
  if (backend.tier == "amx_emulated") {
    const EmulatedTier emulated = AmxEmulated();
    if (emulated.tier == nullptr) {
      bench.missing = emulated.missing;
    } else {
      bench.ops = cpu::MakeOps(*bench.pool, *emulated.tier, options);
    }
    return bench;
  }
  try {
    bench.ops = MakeCpuOps(*bench.pool, options);
  } catch (const Error& error) {
    bench.missing = error.what();
  }
  return bench;
}

}  // namespace tandem
