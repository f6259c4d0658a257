// Plans on real GPUs: every path delivers, and every plugin gives the greedy tokens of one GPU.
// With one GPU it stands for both devices. Skips where there is none; tools/gpu-check runs it where
// one is.
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/run/gpu_rig.h"
#include "engine/run/path_test.h"
#include "tests/run/engine_fixture.h"
#include "tests/run/plugin_options.h"

namespace tandem {
namespace {

using testing::MakeRequest;
using testing::Prompt;

class CudaEngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    found_ = FindGpus();
    if (found_.gpus.empty()) GTEST_SKIP() << found_.driver_message;
    both_ = {found_.gpus.front().index, found_.gpus.back().index};
  }
  Rig RigOf(const std::vector<int>& gpus) { return GpuRig(gpus, found_, ReadGpuMemory); }
  EngineOptions Options(const std::string& plugin, const std::vector<int>& gpus) {
    EngineOptions options;
    options.model = testing::TinyModel(DType::kBF16);
    options.rig = RigOf(gpus);
    options.plugin = plugin;
    options.planner = testing::ShippedPlugins();
    options.limits = PlanLimits{.max_step_tokens = 32, .max_sequences = 4, .context = 4 * 128};
    options.ops.activations = ActivationType::kF32;
    options.threads = 1;
    return options;
  }
  GpuInventory found_;
  std::vector<int> both_;
};

TEST_F(CudaEngineTest, EveryPathDelivers) {
  const Rig rig = RigOf(both_);
  BackendSetup setup{.rig = &rig, .n_devices = 2};
  setup.pool = std::make_shared<ThreadPool>(ThreadPoolOptions{.threads = 1});
  const auto backend = MakeCudaBackend(setup);
  for (const PathVerdict& verdict : TestPaths(*backend, PathsToTest(rig))) {
    if (!verdict.passed && verdict.what == kPathCanBeHad) continue;  // absent, and says why
    EXPECT_TRUE(verdict.passed) << ToString(verdict.path) << " " << verdict.what << ": "
                                << verdict.why;
  }
}

TEST_F(CudaEngineTest, EveryPluginGivesTheTokensOfOneGpu) {
  const auto want =
      testing::RunOne(Options("single", {both_[0]}), MakeRequest(Prompt(41), 12, true));
  ASSERT_EQ(want->reason, FinishReason::kLength) << want->error;
  for (const char* plugin : {TANDEM_PLUGIN_NAMES}) {
    const auto got = testing::RunOne(Options(plugin, both_), MakeRequest(Prompt(41), 12, true));
    EXPECT_EQ(got->ids, want->ids) << plugin << ": " << got->error;
  }
}

}  // namespace
}  // namespace tandem
