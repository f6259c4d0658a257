// Every variant of every architecture in every weight type, split by every shipped plugin over one
// to four devices: plans without a reduce give the logits of `single` to the bit, those with one
// within the tolerance of its sums; and each gives a request the same bits alone and in company.
// Nothing divides evenly: 2 units of KV heads leave some of 3 and 4 devices without attention, and
// of 3 MLP and 3 vocabulary units the last is short or somebody's second.
//
// The models are the `types` of tests/golden/architectures.json, whose logits on one device
// architectures_test.cc holds against transformers: a weight type listed there is tried here too.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "engine/base/error.h"
#include "engine/plan/text.h"
#include "engine/plugin/protocol.h"
#include "tests/run/engine_fixture.h"
#include "tests/run/golden_architectures.h"
#include "tests/run/plugin_options.h"

namespace tandem {
namespace {

using nlohmann::json;
using testing::Recorder;

const std::vector<json>& Types() {
  static const std::vector<json> kTypes = testing::TypedArchitectureCases();
  return kTypes;
}

struct Split {
  std::string plugin;
  std::vector<Knob> knobs;
};

// Every plugin as it comes, and what else its knobs can make of a model of two layers.
std::vector<Split> Splits() {
  std::vector<Split> splits;
  for (const char* plugin : {TANDEM_PLUGIN_NAMES}) splits.push_back({plugin, {}});
  splits.push_back({"layer_split", {{"microbatches", "3"}}});
  splits.push_back({"offload", {{"resident_layers", "1"}}});
  splits.push_back({"offload", {{"resident_layers", "0"}, {"resident_ends", "false"}}});
  return splits;
}

bool Reduces(const Plan& plan) {
  for (const Program& program : plan.programs) {
    for (const Op& op : program.ops) {
      if (op.kind == OpKind::kAllReduce || op.kind == OpKind::kReduceScatter) return true;
    }
  }
  return false;
}

// The plan that a plugin makes, asked for once where the blocks of two models are alike.
const Plan& PlanOf(const std::string& plugin, const std::vector<Knob>& knobs,
                   const PlanProblem& problem) {
  static std::map<std::string, Plan> plans;
  PlanRequest key{.plugin_path = plugin, .plan = true, .knobs = knobs};
  key.graph = *problem.graph;
  key.graph.config = {};
  key.rig = *problem.rig;
  key.limits = problem.limits;
  const auto [at, is_new] = plans.try_emplace(FormatRequest(key));
  if (is_new) {
    try {
      at->second = Planner(testing::ShippedPlugins()).MakePlan(plugin, problem, knobs).plan;
    } catch (...) {
      plans.erase(at);
      throw;
    }
  }
  return at->second;
}

// What the plan does, whoever wrote it and however many devices lie idle beside.
std::string WorkOf(const Plan& plan) {
  Plan busy = plan;
  busy.n_devices = 1;
  for (const Program& program : plan.programs) {
    for (const Op& op : program.ops) {
      for (DeviceId device : op.devices) {
        busy.n_devices = std::max(busy.n_devices, static_cast<uint32_t>(device.value + 1));
      }
    }
  }
  return FormatPlan(busy, PlanText::kHashed);
}

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

class ArchitecturePluginsTest : public ::testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    const json& entry = Types().at(GetParam());
    model_ = MakeSyntheticModel(ParseSyntheticSpec(entry.at("spec").get<std::string>()));
    ids_ = entry.at("ids").get<std::vector<int32_t>>();
  }

  // Steps of 16 rows cut the prompt in two; a page of 64 holds it with its answer. Null where a
  // plan before did the same.
  std::unique_ptr<Engine> MakeEngine(const std::string& plugin, const std::vector<Knob>& knobs,
                                     uint32_t devices) {
    EngineOptions options;
    options.model = model_;
    options.rig = testing::TestRig(devices);
    options.limits = PlanLimits{.max_step_tokens = 16, .max_sequences = 3, .context = 3 * 64};
    options.threads = 1;
    const PlanProblem problem{
        .graph = &model_->blocks(), .rig = &options.rig, .limits = options.limits};
    options.plan = PlanOf(plugin, knobs, problem);
    // Engines that do the same are one: a plan of one device on rigs of several.
    if (!done_.insert(WorkOf(*options.plan)).second) return nullptr;
    // Sums of another order may round an int8 activation to its neighbour; splits_test bounds that.
    options.ops.activations = Reduces(*options.plan) ? ActivationType::kF32 : ActivationType::kInt8;
    return Engine::Create(std::move(options));
  }

  // The request of the golden file, scored, after `company` others that it shares steps with.
  std::shared_ptr<Recorder> Score(Engine& engine, size_t company) {
    for (size_t i = 0; i < company; ++i) {
      const auto length = static_cast<ptrdiff_t>(5 + 6 * i);
      engine.Submit(testing::MakeRequest({ids_.begin() + 2, ids_.begin() + 2 + length}, 3),
                    std::make_shared<Recorder>());
    }
    auto recorder = std::make_shared<Recorder>();
    recorder->vocab = model_->config().vocab;
    engine.Submit(testing::MakeRequest(ids_, 5, /*prompt_logits=*/true), recorder);
    testing::RunAll(engine);
    EXPECT_EQ(recorder->reason, FinishReason::kLength) << recorder->error;
    EXPECT_EQ(recorder->prompt_logits.size(), ids_.size() * model_->config().vocab);
    return recorder;
  }

  std::shared_ptr<Recorder> Single(ActivationType activations) {
    EngineOptions options = testing::TinyOptions(model_, testing::SinglePlan(model_->blocks()));
    options.ops.activations = activations;
    return Score(*Engine::Create(options), 0);
  }

  std::shared_ptr<const Model> model_;
  std::vector<int32_t> ids_;
  std::set<std::string> done_;  // by plans before
};

TEST_P(ArchitecturePluginsTest, GivesTheLogitsOfSingleAloneAndInABatch) {
  const auto int8 = Single(ActivationType::kInt8);
  const auto f32 = Single(ActivationType::kF32);
  std::set<std::string> summed;
  for (const Split& split : Splits()) {
    for (uint32_t devices : {1u, 2u, 3u, 4u}) {
      const std::string what = split.plugin + " on " + std::to_string(devices);
      std::unique_ptr<Engine> engine;
      try {
        engine = MakeEngine(split.plugin, split.knobs, devices);
      } catch (const Error& error) {
        // A plugin may want two devices; it says so.
        EXPECT_EQ(devices, 1u) << what << ": " << error.what();
        continue;
      }
      if (engine == nullptr) continue;
      const auto got = Score(*engine, 0);
      if (Reduces(engine->info().planned.plan)) {
        summed.insert(split.plugin);
        // Two sums a layer in another order, each of at most 768 terms.
        EXPECT_LE(RelativeError(got->prompt_logits, f32->prompt_logits), 1e-4f) << what;
      } else {
        EXPECT_TRUE(testing::SameBits(got->prompt_logits, int8->prompt_logits)) << what;
        EXPECT_EQ(got->ids, int8->ids) << what;
      }
      const auto batched = Score(*engine, 2);
      EXPECT_TRUE(testing::SameBits(batched->prompt_logits, got->prompt_logits)) << what;
      EXPECT_EQ(batched->ids, got->ids) << what;
    }
  }
  // One of these that began to reduce would be held to less, unseen.
  EXPECT_EQ(summed.count("tensor_split"), 1u);
  for (const char* exact : {"single", "replicas", "layer_split", "offload"}) {
    EXPECT_EQ(summed.count(exact), 0u) << exact;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, ArchitecturePluginsTest,
                         ::testing::Range<size_t>(0, Types().size()), [](const auto& info) {
                           return Types().at(info.param).at("name").template get<std::string>();
                         });

}  // namespace
}  // namespace tandem
