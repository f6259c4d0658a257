// Every architecture in every weight type, split by every shipped plugin over one to four devices:
// plans without a reduce give the logits of `single` to the bit, a tensor split gives them within
// the tolerance of its sums. With 2 KV heads, 3 and 4 devices leave some without attention; so do
// the last ones of 3 MLP and 3 vocabulary units.
//
// The models are the `types` of tests/golden/architectures.json, whose logits on one device
// architectures_test.cc holds against transformers: a weight type listed there is tried here too.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/base/error.h"
#include "tests/run/engine_fixture.h"

namespace tandem {
namespace {

using nlohmann::json;
using testing::Recorder;

const json& Types() {
  static const json kTypes = [] {
    std::ifstream file("tests/golden/architectures.json");
    return json::parse(file).at("types");
  }();
  return kTypes;
}

struct Split {
  const char* plugin;
  std::vector<Knob> knobs;
  bool sums = false;  // with more than one device
};
const Split kSplits[] = {{"replicas", {}},
                         {"layer_split", {}},
                         {"tensor_split", {}, true},
                         {"offload", {{"resident_layers", "1"}}},
                         {"offload", {{"resident_layers", "0"}, {"resident_ends", "false"}}}};

class ArchitecturePluginsTest : public ::testing::TestWithParam<size_t> {
 protected:
  std::shared_ptr<Recorder> Score(const std::string& plugin, const std::vector<Knob>& knobs,
                                  uint32_t devices, ActivationType activations) {
    EngineOptions options;
    options.model = model_;
    options.rig = testing::TestRig(devices);
    options.plugin = plugin;
    options.knobs = knobs;
    options.planner = PlannerOptions{.helper = TANDEM_PLANNER, .folders = {TANDEM_PLUGINS}};
    options.limits = PlanLimits{.max_step_tokens = 16, .max_sequences = 2, .context = 2 * 64};
    options.threads = 1;
    options.ops.activations = activations;
    return testing::RunOne(options, testing::MakeRequest(ids_, 5, /*prompt_logits=*/true));
  }

  void SetUp() override {
    const json& entry = Types().at(GetParam());
    model_ = MakeSyntheticModel(ParseSyntheticSpec(entry.at("spec").get<std::string>()));
    ids_ = entry.at("ids").get<std::vector<int32_t>>();
  }

  std::shared_ptr<const Model> model_;
  std::vector<int32_t> ids_;
};

// The largest difference as a share of the largest logit.
float RelativeError(const std::vector<float>& got, const std::vector<float>& want) {
  float largest = 0;
  float error = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::fabs(want[i]));
    const float e = std::fabs(got[i] - want[i]);
    error = e <= error ? error : e;
  }
  return error / largest;
}

TEST_P(ArchitecturePluginsTest, GivesTheLogitsOfSingle) {
  const auto int8 = Score("single", {}, 1, ActivationType::kInt8);
  const auto f32 = Score("single", {}, 1, ActivationType::kF32);
  ASSERT_EQ(int8->reason, FinishReason::kLength) << int8->error;
  ASSERT_EQ(int8->prompt_logits.size(), ids_.size() * model_->config().vocab);
  for (const Split& split : kSplits) {
    for (uint32_t devices : {1u, 2u, 3u, 4u}) {
      const std::string what = std::string(split.plugin) + " on " + std::to_string(devices);
      const bool sums = split.sums && devices > 1;
      std::shared_ptr<Recorder> got;
      try {
        got = Score(split.plugin, split.knobs, devices,
                    sums ? ActivationType::kF32 : ActivationType::kInt8);
      } catch (const Error& error) {
        // A plugin may want two devices; it says so.
        EXPECT_EQ(devices, 1u) << what << ": " << error.what();
        continue;
      }
      const Recorder& want = sums ? *f32 : *int8;
      ASSERT_EQ(got->prompt_logits.size(), want.prompt_logits.size()) << what << got->error;
      if (sums) {
        // Two sums a layer in another order, each of at most 96 terms.
        EXPECT_LE(RelativeError(got->prompt_logits, want.prompt_logits), 1e-4f) << what;
      } else {
        EXPECT_TRUE(testing::SameBits(got->prompt_logits, want.prompt_logits)) << what;
        EXPECT_EQ(got->ids, want.ids) << what;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, ArchitecturePluginsTest,
                         ::testing::Range<size_t>(0, Types().size()), [](const auto& info) {
                           return Types().at(info.param).at("name").template get<std::string>();
                         });

}  // namespace
}  // namespace tandem
