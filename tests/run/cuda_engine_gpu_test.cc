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

// Recorded steps are the same to the bit, longer sequences and all, and say that they were
// replayed.
TEST_F(CudaEngineTest, ReplaysGiveTheTokensOfEagerSteps) {
  for (const char* plugin : {"single", "layer_split", "tensor_split"}) {
    const std::vector<int> gpus =
        std::string(plugin) == "single" ? std::vector<int>{both_[0]} : both_;
    std::vector<std::vector<float>> logprobs(2);
    for (GraphUse graphs : {GraphUse::kOff, GraphUse::kOn}) {
      EngineOptions options = Options(plugin, gpus);
      options.limits.context = 4 * 320;
      options.gpu.graphs = graphs;
      std::unique_ptr<Engine> engine = Engine::Create(options);
      testing::StepLog log;
      engine->AddObserver(&log);
      auto recorder = std::make_shared<testing::Recorder>();
      Request request = MakeRequest(Prompt(250), 16);
      request.logprobs = 1;
      engine->Submit(std::move(request), recorder);
      testing::RunAll(*engine);
      ASSERT_EQ(recorder->reason, FinishReason::kLength) << plugin << ": " << recorder->error;
      auto& own = logprobs[graphs == GraphUse::kOn ? 1 : 0];
      for (const TokenEvent& event : recorder->events) own.push_back(event.logprob);
      EXPECT_EQ(log.steps.back().launch == LaunchMode::kGraph, graphs == GraphUse::kOn) << plugin;
      EXPECT_GT(log.steps.back().timeline.length, Nanos{0}) << plugin;
    }
    EXPECT_EQ(logprobs[0], logprobs[1]) << plugin;
  }
}

// A prompt long enough for it. On BF16 weights the same numbers meet, added up in another order.
TEST_F(CudaEngineTest, PromptsByCublasLtGiveTheTokensOfOwnKernels) {
  EngineOptions options = Options("single", {both_[0]});
  options.ops.activations = ActivationType::kInt8;
  options.limits.max_step_tokens = 256;
  options.limits.context = 4 * 320;
  const auto want = testing::RunOne(options, MakeRequest(Prompt(250), 8, true));
  ASSERT_EQ(want->reason, FinishReason::kLength) << want->error;
  options.gpu.prefill_products = PrefillProducts::kCublasLt;
  try {
    const auto got = testing::RunOne(options, MakeRequest(Prompt(250), 8, true));
    EXPECT_EQ(got->ids, want->ids) << got->error;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnsupported) throw;
    GTEST_SKIP() << error.what();
  }
}

// Sums that take the residual and the norm along, over whatever path there is between the two.
TEST_F(CudaEngineTest, FusedCollectivesGiveTheBitsOfTheOpsApart) {
  for (PathKind path : {PathKind::kP2p, PathKind::kHostStaged}) {
    for (GraphUse graphs : {GraphUse::kOff, GraphUse::kOn}) {
      std::vector<std::shared_ptr<testing::Recorder>> got;
      for (bool fused : {true, false}) {
        EngineOptions options = Options("tensor_split", both_);
        options.path = path;
        options.gpu.graphs = graphs;
        options.gpu.fuse_collectives = fused;
        got.push_back(testing::RunOne(std::move(options), MakeRequest(Prompt(41), 12, true)));
        ASSERT_EQ(got.back()->reason, FinishReason::kLength) << got.back()->error;
      }
      EXPECT_EQ(got[0]->ids, got[1]->ids);
      EXPECT_TRUE(testing::SameBits(got[0]->prompt_logits, got[1]->prompt_logits));
    }
  }
}

}  // namespace
}  // namespace tandem
