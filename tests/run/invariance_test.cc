// A request's logits do not depend, to the bit, on what shares its batch, how its prompt was
// chunked, or how many threads ran.
#include <gtest/gtest.h>

#include "tests/run/engine_fixture.h"

namespace tandem {
namespace {

using testing::MakeRequest;
using testing::Prompt;
using testing::Recorder;
using testing::RunAll;
using testing::RunOne;
using testing::TinyModel;
using testing::TinyOptions;

std::vector<Plan> Plans(const BlockGraph& graph) {
  return {testing::SinglePlan(graph), testing::LayerSplitPlan(graph, 2, 2),
          testing::TensorSplitPlan(graph, {2, 1}), testing::OffloadPlan(graph),
          testing::ReplicasPlan(graph, 2)};
}

Request Sampled(size_t n, int32_t seed) {
  Request request = MakeRequest(Prompt(n, seed), 10);
  request.sampling.temperature = 0.8;
  request.sampling.seed = static_cast<uint64_t>(seed);
  request.logprobs = 3;
  return request;
}

void ExpectSame(const Recorder& a, const Recorder& b, const std::string& what) {
  ASSERT_EQ(a.reason, FinishReason::kLength) << what << ": " << a.error;
  EXPECT_EQ(a.ids, b.ids) << what;
  ASSERT_EQ(a.events.size(), b.events.size());
  for (size_t i = 0; i < a.events.size(); ++i) {
    EXPECT_EQ(a.events[i].logprob, b.events[i].logprob) << what << " token " << i;
    EXPECT_EQ(a.events[i].top, b.events[i].top) << what << " token " << i;
  }
}

TEST(InvarianceTest, BatchDoesNotMatter) {
  for (DType type : {DType::kF32, DType::kQ4_1, DType::kQ5_0, DType::kQ4_K, DType::kQ6_K}) {
    const auto model = TinyModel(type);
    for (const Plan& plan : Plans(model->blocks())) {
      const auto alone = RunOne(TinyOptions(model, plan), Sampled(23, 5));
      auto engine = Engine::Create(TinyOptions(model, plan));
      std::vector<std::shared_ptr<Recorder>> all;
      for (int32_t seed : {2, 3, 5, 8, 9, 4}) {
        all.push_back(std::make_shared<Recorder>());
        engine->Submit(Sampled(seed == 5 ? 23 : 3 * static_cast<size_t>(seed), seed), all.back());
      }
      RunAll(*engine);
      ExpectSame(*all[2], *alone, plan.plugin);
    }
  }
}

TEST(InvarianceTest, ChunksDoNotMatter) {
  const auto model = TinyModel(DType::kQ4_1);
  for (const Plan& plan : Plans(model->blocks())) {
    std::shared_ptr<Recorder> want;
    for (uint32_t chunk : {64u, 1u, 7u, 16u}) {
      EngineOptions options = TinyOptions(model, plan);
      options.limits.max_step_tokens = chunk;
      const auto got = RunOne(options, Sampled(61, 5));
      if (want == nullptr) want = got;
      ExpectSame(*got, *want, plan.plugin + " in chunks of " + std::to_string(chunk));
    }
  }
}

// What the families bring beside a plain llama: biases, head norms, windows, scaled rotations.
TEST(InvarianceTest, HoldsForEveryArchitecture) {
  const std::string shape =
      "h=96,l=2,heads=6,kv=3,hd=32,ffn=160,vocab=200,ctx=512,type=q4_1,seed=7";
  for (const char* more : {",arch=qwen2", ",arch=qwen3,window=19", ",window=5,bias=1",
                           ",yarn=4,orig=32", ",llama3=8,orig=64"}) {
    const auto model = MakeSyntheticModel(ParseSyntheticSpec(shape + more));
    for (const Plan& plan : Plans(model->blocks())) {
      const auto alone = RunOne(TinyOptions(model, plan), Sampled(45, 5));
      EngineOptions chunked = TinyOptions(model, plan);
      chunked.limits.max_step_tokens = 7;
      ExpectSame(*RunOne(chunked, Sampled(45, 5)), *alone, plan.plugin + more + " chunked");
      EngineOptions threaded = TinyOptions(model, plan);
      threaded.threads = 3;
      auto engine = Engine::Create(threaded);
      std::vector<std::shared_ptr<Recorder>> all;
      for (int32_t seed : {2, 5, 9}) {
        all.push_back(std::make_shared<Recorder>());
        engine->Submit(Sampled(seed == 5 ? 45 : 3 * static_cast<size_t>(seed), seed), all.back());
      }
      RunAll(*engine);
      ExpectSame(*all[1], *alone, plan.plugin + more + " in a batch");
    }
  }
}

TEST(InvarianceTest, ThreadsDoNotMatter) {
  const auto model = TinyModel(DType::kQ8_0);
  for (const Plan& plan : Plans(model->blocks())) {
    std::shared_ptr<Recorder> want;
    for (int threads : {1, 2, 3}) {
      EngineOptions options = TinyOptions(model, plan);
      options.threads = threads;
      const auto got = RunOne(options, Sampled(40, 5));
      if (want == nullptr) want = got;
      ExpectSame(*got, *want, plan.plugin + " on " + std::to_string(threads) + " threads");
    }
  }
}

TEST(InvarianceTest, ScoringAPromptLeavesItsAnswerAlone) {
  const auto model = TinyModel(DType::kQ4_1);
  const Plan plan = testing::SinglePlan(model->blocks());
  const auto plain = RunOne(TinyOptions(model, plan), MakeRequest(Prompt(50), 8));
  const auto scored = RunOne(TinyOptions(model, plan), MakeRequest(Prompt(50), 8, true));
  EXPECT_EQ(plain->ids, scored->ids);
  ASSERT_EQ(scored->prompt_logits.size(), 50u * 200u);
  // The first token is the best of the last position.
  const auto last = scored->prompt_logits.end() - 200;
  EXPECT_EQ(std::max_element(last, scored->prompt_logits.end()) - last, plain->ids[0]);
}

}  // namespace
}  // namespace tandem
