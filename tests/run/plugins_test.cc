// Every shipped plugin, asked through its helper process, on one to three devices: the engine runs
// what it plans and gives the logits of `single`.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/base/error.h"
#include "tests/run/emulated_rig.h"
#include "tests/run/engine_fixture.h"
#include "tests/run/plugin_options.h"

namespace tandem {
namespace {

using testing::MakeRequest;
using testing::PluginOptions;
using testing::Prompt;
using testing::Recorder;
using testing::RunOne;

// Whether a plan adds partial sums of several devices, which takes another order than one device's.
bool Reduces(const EngineOptions& options) {
  const PlanProblem problem{
      .graph = &options.model->blocks(), .rig = &options.rig, .limits = options.limits};
  const PlannedRun run = Planner(options.planner).MakePlan(options.plugin, problem, {});
  for (const Program& program : run.plan.programs) {
    for (const Op& op : program.ops) {
      if (op.kind == OpKind::kAllReduce || op.kind == OpKind::kReduceScatter) return true;
    }
  }
  return false;
}

TEST(PluginsTest, EveryPluginGivesTheLogitsOfSingle) {
  for (DType type : kAllDTypes) {
    const auto model = testing::TinyModel(type);
    const auto score = [&](const std::string& plugin, uint32_t devices,
                           ActivationType activations) {
      EngineOptions options = PluginOptions(model, plugin, devices);
      options.ops.activations = activations;
      return RunOne(options, MakeRequest(Prompt(41), 9, /*prompt_logits=*/true));
    };
    for (ActivationType activations : {ActivationType::kInt8, ActivationType::kF32}) {
      const auto want = score("single", 1, activations);
      ASSERT_EQ(want->reason, FinishReason::kLength) << want->error;
      for (const char* plugin : {TANDEM_PLUGIN_NAMES}) {
        for (uint32_t devices : {1u, 2u, 3u}) {
          const std::string what = std::string(plugin) + " on " + std::to_string(devices) + " " +
                                   ToString(type) + " " + ToString(activations);
          const bool sums = devices > 1 && Reduces(PluginOptions(model, plugin, devices));
          if (sums && activations == ActivationType::kInt8) continue;  // splits_test bounds it
          std::shared_ptr<Recorder> got;
          try {
            got = score(plugin, devices, activations);
          } catch (const Error& error) {
            // A plugin may want two devices; it says so.
            EXPECT_EQ(devices, 1u) << what << ": " << error.what();
            continue;
          }
          ASSERT_EQ(got->prompt_logits.size(), want->prompt_logits.size()) << what << got->error;
          EXPECT_EQ(got->ids, want->ids) << what;
          if (!sums) {
            EXPECT_TRUE(testing::SameBits(got->prompt_logits, want->prompt_logits)) << what;
            continue;
          }
          float largest = 0;
          float error = 0;
          for (size_t i = 0; i < want->prompt_logits.size(); ++i) {
            largest = std::max(largest, std::fabs(want->prompt_logits[i]));
            error = std::max(error, std::fabs(got->prompt_logits[i] - want->prompt_logits[i]));
          }
          EXPECT_LE(error, 1e-4f * largest) << what;
        }
      }
    }
  }
}

TEST(PluginsTest, UnevenSharesRun) {
  const auto model = testing::TinyModel(DType::kF32);
  const auto want = RunOne(PluginOptions(model, "single", 1), MakeRequest(Prompt(30), 9));
  for (const char* plugin : {"tensor_split", "layer_split"}) {
    EngineOptions options = PluginOptions(model, plugin, 2);
    options.tensor_split = {2, 1};
    EXPECT_EQ(RunOne(options, MakeRequest(Prompt(30), 9))->ids, want->ids) << plugin;
  }
}

TEST(PluginsTest, AutoRunsThePlanItChose) {
  const auto model = testing::TinyModel(DType::kF32);
  const auto want = RunOne(PluginOptions(model, "single", 1), MakeRequest(Prompt(30), 9));
  EngineOptions options = PluginOptions(model, "auto", 2);
  options.rig = testing::EmulatedRig(2);
  options.clock = ClockKind::kVirtual;
  options.op_times = OpTimes::kModelled;
  auto engine = Engine::Create(options);
  EXPECT_EQ(engine->info().planned.requested, "auto");
  EXPECT_FALSE(engine->info().planned.candidates.empty());
  EXPECT_NE(engine->info().planned.plugin.name, "auto");
  auto got = std::make_shared<Recorder>();
  engine->Submit(MakeRequest(Prompt(30), 9), got);
  testing::RunAll(*engine);
  EXPECT_EQ(got->ids, want->ids);
}

}  // namespace
}  // namespace tandem
