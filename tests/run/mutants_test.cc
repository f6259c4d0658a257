// Mutated plans on the real executor: whatever the verifier accepts gives the logits of `single`.
// The million-fold fuzz runs on a toy (tests/support/toy_executor.h); this one shows that kernels,
// packed weights, KV pages and collectives follow the same rules.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "engine/plan/text.h"
#include "tests/run/engine_fixture.h"
#include "tests/support/mutation.h"

namespace tandem {
namespace {

using testing::MakeRequest;
using testing::Prompt;
using testing::Recorder;

constexpr int kMutants = 2000;

struct Logits {
  std::vector<std::vector<float>> prompts;
  std::vector<std::vector<int32_t>> ids;
  std::string error;
};

// Three prompts at once, in chunks, and a few tokens after each.
Logits RunPlan(const std::shared_ptr<const Model>& model, const Plan& plan) {
  EngineOptions options = testing::TinyOptions(model, plan);
  options.limits = PlanLimits{.max_step_tokens = 8, .max_sequences = 3, .context = 3 * 64};
  options.ops.activations = ActivationType::kF32;
  auto engine = Engine::Create(options);
  std::vector<std::shared_ptr<Recorder>> all;
  for (int32_t i = 0; i < 3; ++i) {
    all.push_back(std::make_shared<Recorder>());
    engine->Submit(MakeRequest(Prompt(static_cast<size_t>(5 + 6 * i), i), 3, i == 1), all.back());
  }
  testing::RunAll(*engine);
  Logits logits;
  for (const auto& recorder : all) {
    logits.prompts.push_back(recorder->prompt_logits);
    logits.ids.push_back(recorder->ids);
    logits.error += recorder->error;
  }
  return logits;
}

std::vector<Plan> Seeds(const BlockGraph& graph) {
  return {testing::SinglePlan(graph),
          testing::LayerSplitPlan(graph, 2, 2),
          testing::TensorSplitPlan(graph, {2, 1}),
          testing::OffloadPlan(graph),
          testing::SequenceParallelPlan(graph, {1, 2}),
          testing::WeightGatherPlan(graph, 2),
          testing::DisaggregatePlan(graph),
          testing::ReplicatedAttentionPlan(graph, 2, 2)};
}

TEST(MutantsTest, AcceptedMutantsComputeTheModel) {
  const auto model = testing::TinyModel(DType::kF32);
  const BlockGraph& graph = model->blocks();
  const Logits want = RunPlan(model, testing::SinglePlan(graph));
  ASSERT_EQ(want.error, "");
  float largest = 0;
  for (float x : want.prompts[1]) largest = std::max(largest, std::fabs(x));
  const std::vector<Plan> seeds = Seeds(graph);
  const Rig rig = testing::TestRig(4);
  std::mt19937_64 random(20240817);
  int accepted = 0;
  for (int i = 0; i < kMutants; ++i) {
    const Plan& seed = seeds[static_cast<size_t>(i) % seeds.size()];
    const Plan mutant = testing::Mutate(seed, graph, random);
    if (mutant == seed) continue;
    const PlanLimits limits{.max_step_tokens = 8, .max_sequences = 3, .context = 3 * 64};
    if (mutant.wire != WireType::kF32 || !VerifyPlan(mutant, graph, rig, limits).ok()) continue;
    ++accepted;
    const Logits got = RunPlan(model, mutant);
    ASSERT_EQ(got.error, "") << FormatPlan(mutant);
    EXPECT_EQ(got.ids, want.ids) << FormatPlan(mutant);
    for (size_t k = 0; k < want.prompts[1].size(); ++k) {
      // A wrong plan is wrong by much; the order of sums moves the last bits.
      ASSERT_NEAR(got.prompts[1][k], want.prompts[1][k], largest * 1e-4) << FormatPlan(mutant);
    }
  }
  EXPECT_GT(accepted, kMutants / 50) << "too few mutants were tried";
  RecordProperty("accepted", accepted);
}

}  // namespace
}  // namespace tandem
