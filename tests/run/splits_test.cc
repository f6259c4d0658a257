// Every split against `single` on a tiny model of every weight type: bit-identical logits where the
// plan has no reduce, within a derived tolerance where it has.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/run/engine_fixture.h"

namespace tandem {
namespace {

using testing::MakeRequest;
using testing::Prompt;
using testing::Recorder;
using testing::RunOne;
using testing::TinyModel;
using testing::TinyOptions;

struct Split {
  const char* name;
  Plan plan;
};

std::vector<Split> ExactSplits(const BlockGraph& graph) {
  return {{"replicas", testing::ReplicasPlan(graph, 2)},
          {"replicas of 3", testing::ReplicasPlan(graph, 3)},
          {"layer_split", testing::LayerSplitPlan(graph, 2, 1)},
          {"layer_split m2", testing::LayerSplitPlan(graph, 2, 2)},
          {"layer_split of 3 m4", testing::LayerSplitPlan(graph, 3, 4)},
          {"offload", testing::OffloadPlan(graph)},
          {"disaggregate", testing::DisaggregatePlan(graph)}};
}

std::vector<Split> SummingSplits(const BlockGraph& graph) {
  return {{"tensor_split 1,1", testing::TensorSplitPlan(graph, {1, 1})},
          {"tensor_split 2,1", testing::TensorSplitPlan(graph, {2, 1})},
          {"tensor_split 1,1,1 two_shot",
           testing::TensorSplitPlan(graph, {1, 1, 1}, Algorithm::kTwoShot)},
          {"tensor_split 5,1,2", testing::TensorSplitPlan(graph, {5, 1, 2})},
          {"sequence_parallel", testing::SequenceParallelPlan(graph, {1, 2})},
          {"weight_gather", testing::WeightGatherPlan(graph, 2)},
          {"replicated attention", testing::ReplicatedAttentionPlan(graph, 2, 2)}};
}

std::shared_ptr<Recorder> Score(std::shared_ptr<const Model> model, Plan plan,
                                ActivationType activations) {
  EngineOptions options = TinyOptions(std::move(model), std::move(plan));
  options.ops.activations = activations;
  return RunOne(std::move(options), MakeRequest(Prompt(41), 12, /*prompt_logits=*/true));
}

TEST(SplitsTest, PlansWithoutAReduceMatchSingleToTheBit) {
  for (DType type : kAllDTypes) {
    for (bool tied : {true, false}) {
      const auto model = TinyModel(type, tied);
      const auto single = Score(model, testing::SinglePlan(model->blocks()), ActivationType::kInt8);
      ASSERT_EQ(single->reason, FinishReason::kLength) << single->error;
      ASSERT_EQ(single->prompt_logits.size(), 41u * 200u);
      for (const Split& split : ExactSplits(model->blocks())) {
        const auto got = Score(model, split.plan, ActivationType::kInt8);
        ASSERT_EQ(got->reason, FinishReason::kLength) << split.name << ": " << got->error;
        EXPECT_TRUE(testing::SameBits(got->prompt_logits, single->prompt_logits))
            << split.name << " " << ToString(type) << (tied ? " tied" : "");
        EXPECT_EQ(got->ids, single->ids) << split.name << " " << ToString(type);
      }
    }
  }
}

// With f32 activations a split changes the order of two sums a layer, over at most `ffn` terms
// each. Reordering a sum of n terms moves it by about sqrt(n) * 2^-24 of the terms' norm; each
// layer adds its own to the residual, and the last norm scales the whole to order one. The margin
// of 32 stands for what the norms and the softmax amplify.
double Tolerance(const ModelConfig& config, const std::vector<float>& logits) {
  double norm = 0;
  for (float x : logits) norm = std::max(norm, static_cast<double>(std::fabs(x)));
  const double terms = std::max({config.ffn, config.q_dim(), config.hidden});
  return 32 * std::sqrt(terms) * 0x1p-24 * 2 * config.n_layers * norm;
}

TEST(SplitsTest, PlansWithAReduceStayWithinTheSumsTolerance) {
  for (DType type : kAllDTypes) {
    const auto model = TinyModel(type);
    const auto single = Score(model, testing::SinglePlan(model->blocks()), ActivationType::kF32);
    const double tolerance = Tolerance(model->config(), single->prompt_logits);
    for (const Split& split : SummingSplits(model->blocks())) {
      const auto got = Score(model, split.plan, ActivationType::kF32);
      ASSERT_EQ(got->prompt_logits.size(), single->prompt_logits.size())
          << split.name << ": " << got->error;
      size_t worst = 0;
      double error = 0;
      for (size_t i = 0; i < got->prompt_logits.size(); ++i) {
        const double e = std::fabs(got->prompt_logits[i] - single->prompt_logits[i]);
        if (!(e <= error)) error = e, worst = i;
      }
      EXPECT_LE(error, tolerance) << split.name << " " << ToString(type) << ": position "
                                  << worst / 200 << " token " << worst % 200 << " is "
                                  << got->prompt_logits[worst] << ", single has "
                                  << single->prompt_logits[worst];
    }
  }
}

// int8 activations turn the last bit of a sum into a step of a quantised activation now and then:
// 1/254 of a block's largest element, in a few of a row's elements. What it does to logits is of
// the order of what quantising them did in the first place, which is what the bound is taken from.
TEST(SplitsTest, Int8PlansWithAReduceStayWithinWhatQuantisingCosts) {
  const auto model = TinyModel(DType::kQ4_1);
  const auto f32 = Score(model, testing::SinglePlan(model->blocks()), ActivationType::kF32);
  const auto single = Score(model, testing::SinglePlan(model->blocks()), ActivationType::kInt8);
  double quantising = 0;
  for (size_t i = 0; i < f32->prompt_logits.size(); ++i) {
    quantising =
        std::max<double>(quantising, std::fabs(f32->prompt_logits[i] - single->prompt_logits[i]));
  }
  EXPECT_GT(quantising, 0);
  for (const Split& split : SummingSplits(model->blocks())) {
    const auto got = Score(model, split.plan, ActivationType::kInt8);
    for (size_t i = 0; i < got->prompt_logits.size(); ++i) {
      ASSERT_LE(std::fabs(got->prompt_logits[i] - single->prompt_logits[i]), quantising)
          << split.name << " element " << i;
    }
  }
}

TEST(SplitsTest, OracleAndKernelsAgreeOnGreedyTokens) {
  const auto model = TinyModel(DType::kF32);
  EngineOptions oracle = TinyOptions(model, testing::SinglePlan(model->blocks()));
  oracle.ops.tier = "ref";
  EngineOptions kernels = TinyOptions(model, testing::SinglePlan(model->blocks()));
  const auto want = RunOne(oracle, MakeRequest(Prompt(20), 20));
  const auto got = RunOne(kernels, MakeRequest(Prompt(20), 20));
  EXPECT_EQ(got->ids, want->ids);
}

TEST(SplitsTest, RoundedWiresLeaveRanksInAgreement) {
  // The ranks of a tensor split hold the same residual: were they to disagree, the logits of the
  // two halves of the vocabulary would come from different states, and a repetition would differ.
  const auto model = TinyModel(DType::kF32);
  for (WireType wire : {WireType::kBf16, WireType::kQ8}) {
    Plan plan = testing::TensorSplitPlan(model->blocks(), {2, 1});
    plan.wire = wire;
    const auto a = Score(model, plan, ActivationType::kF32);
    const auto b = Score(model, plan, ActivationType::kF32);
    const auto single = Score(model, testing::SinglePlan(model->blocks()), ActivationType::kF32);
    EXPECT_TRUE(testing::SameBits(a->prompt_logits, b->prompt_logits));
    double largest = 0;
    double error = 0;
    for (size_t i = 0; i < a->prompt_logits.size(); ++i) {
      largest = std::max<double>(largest, std::fabs(single->prompt_logits[i]));
      error = std::max<double>(error, std::fabs(a->prompt_logits[i] - single->prompt_logits[i]));
    }
    // bf16 keeps 8 bits, q8 about 7 of a block's largest: five roundings of partials.
    EXPECT_LE(error, largest * 5 / 64) << ToString(wire);
    EXPECT_GT(error, 0) << "the wire rounds nothing";
  }
}

}  // namespace
}  // namespace tandem
