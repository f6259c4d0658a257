// The default model against an fp32 reference on its dequantised weights, teacher-forced over the
// committed prompts (tests/golden/logits, written by tools/make-reference-logits). Reads the
// model's path from TANDEM_TEST_MODEL and is skipped where it is unset.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/run/engine_fixture.h"

namespace tandem {
namespace {

using testing::MakeRequest;
using testing::Recorder;
using testing::RunAll;

constexpr const char* kReference = "tests/golden/logits/smollm2-135m.json";

class GoldenLogitsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("TANDEM_TEST_MODEL");
    if (path == nullptr || *path == '\0') {
      GTEST_SKIP() << "TANDEM_TEST_MODEL is unset: no model to hold against the reference";
    }
    std::ifstream file(kReference);
    if (!file) GTEST_SKIP() << kReference << " is missing";
    reference_ = nlohmann::json::parse(file);
    model_ = LoadGguf(path);
    ASSERT_EQ(model_->weights_hash(), reference_.at("model_sha256"))
        << "TANDEM_TEST_MODEL is not the model that the reference was made from";
  }

  // All logits of every prompt, by name.
  std::map<std::string, std::vector<float>> Score(ActivationType activations) {
    EngineOptions options;
    options.model = model_;
    options.rig = testing::TestRig(1);
    options.plan = testing::SinglePlan(model_->blocks());
    options.ops.activations = activations;
    options.limits = PlanLimits{.max_step_tokens = 512, .max_sequences = 16, .context = 16 * 1024};
    auto engine = Engine::Create(options);
    std::map<std::string, std::shared_ptr<Recorder>> recorders;
    for (const auto& prompt : reference_.at("prompts")) {
      auto recorder = std::make_shared<Recorder>();
      recorder->vocab = model_->config().vocab;
      recorders[prompt.at("name")] = recorder;
      engine->Submit(MakeRequest(prompt.at("tokens").get<std::vector<int32_t>>(), 0, true),
                     recorder);
    }
    RunAll(*engine);
    std::map<std::string, std::vector<float>> logits;
    for (auto& [name, recorder] : recorders) {
      EXPECT_EQ(recorder->reason, FinishReason::kLength) << name << ": " << recorder->error;
      logits[name] = std::move(recorder->prompt_logits);
    }
    return logits;
  }

  struct Agreement {
    size_t agree = 0;
    size_t of = 0;
    std::string first_miss;
  };
  // Positions whose top two reference logits are at least `gap` apart.
  Agreement TopTokens(const std::map<std::string, std::vector<float>>& logits, double gap) const {
    const size_t vocab = model_->config().vocab;
    Agreement result;
    for (const auto& prompt : reference_.at("prompts")) {
      const std::string name = prompt.at("name");
      const std::vector<float>& rows = logits.at(name);
      const size_t positions = prompt.at("tokens").size();
      EXPECT_EQ(rows.size(), positions * vocab) << name;
      for (size_t p = 0; p < positions; ++p) {
        if (prompt.at("gap").at(p).get<double>() < gap) continue;
        const auto row = rows.begin() + static_cast<long>(p * vocab);
        const auto top = std::max_element(row, row + static_cast<long>(vocab)) - row;
        ++result.of;
        if (top == prompt.at("top").at(p).get<long>()) {
          ++result.agree;
        } else if (result.first_miss.empty()) {
          result.first_miss = name + " position " + std::to_string(p) + ": token " +
                              std::to_string(top) + ", the reference has " +
                              prompt.at("top").at(p).dump() + " by " +
                              prompt.at("gap").at(p).dump();
        }
      }
    }
    return result;
  }

  nlohmann::json reference_;
  std::shared_ptr<const Model> model_;
};

TEST_F(GoldenLogitsTest, F32ActivationsAgreeWhereverTheGapIsATwentieth) {
  const auto logits = Score(ActivationType::kF32);
  const Agreement top = TopTokens(logits, 0.05);
  EXPECT_GT(top.of, 1500u);
  EXPECT_EQ(top.agree, top.of) << top.first_miss;

  // Whole rows too: f16 keys and values (11 bits) are all that sets them apart.
  const auto ids = reference_.at("sampled_ids").get<std::vector<size_t>>();
  double worst = 0;
  for (const auto& sample : reference_.at("samples")) {
    const std::vector<float>& rows = logits.at(sample.at("prompt"));
    const size_t row = sample.at("position").get<size_t>() * model_->config().vocab;
    for (size_t i = 0; i < ids.size(); ++i) {
      const double want = sample.at("logits").at(i);
      worst = std::max(worst, std::fabs(rows[row + ids[i]] - want));
    }
  }
  EXPECT_LT(worst, 0.02);
  RecordProperty("largest_difference", std::to_string(worst));
}

TEST_F(GoldenLogitsTest, Int8ActivationsAgreeWhereTheGapIsClear) {
  const Agreement top = TopTokens(Score(ActivationType::kInt8), 0.3);
  EXPECT_GT(top.of, 1000u);
  EXPECT_GE(static_cast<double>(top.agree), 0.995 * static_cast<double>(top.of))
      << top.agree << " of " << top.of << "; " << top.first_miss;
  RecordProperty("agree", std::to_string(top.agree) + " of " + std::to_string(top.of));
}

}  // namespace
}  // namespace tandem
