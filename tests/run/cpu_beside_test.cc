// Plans over cards and the host's processor, on fake devices that have their manners: logits are
// one device's to the bit in whatever order the queues are run, and what crosses is booked on the
// host's link.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "tests/run/engine_fixture.h"
#include "tests/run/plugin_options.h"
#include "tests/support/fake_machine.h"

namespace tandem {
namespace {

using testing::FakeMachine;
using ::testing::HasSubstr;
using testing::MakeRequest;
using testing::PluginOptions;
using testing::Prompt;
using testing::Recorder;
using testing::RunAll;
using testing::SameBits;

constexpr uint64_t kSeeds = 3;

// `cards` and the host's processor after them.
EngineOptions Beside(const std::shared_ptr<const Model>& model, const std::string& plugin,
                     uint32_t cards, std::vector<Knob> knobs = {}) {
  EngineOptions options = PluginOptions(model, plugin, cards + 1);
  options.rig.devices.back().on_host = true;
  options.rig.gpus.assign(cards, 0);
  for (uint32_t d = 0; d < cards; ++d) options.rig.gpus[d] = static_cast<int>(d);
  options.rig.gpus.push_back(Rig::kNotAGpu);
  options.knobs = std::move(knobs);
  return options;
}

struct Ran {
  std::vector<std::shared_ptr<Recorder>> recorders;
  testing::StepLog log;
};

void RunThree(EngineOptions options, Ran& ran, FakeMachine* machine) {
  if (machine != nullptr) options = testing::On(*machine, options);
  std::unique_ptr<Engine> engine = Engine::Create(options);
  engine->AddObserver(&ran.log);
  for (int32_t i = 0; i < 3; ++i) {
    ran.recorders.push_back(std::make_shared<Recorder>());
    ran.recorders.back()->vocab = options.model->config().vocab;
    engine->Submit(MakeRequest(Prompt(i == 0 ? 41 : 9, i), 5, i == 0), ran.recorders.back());
  }
  RunAll(*engine);
}

uint64_t BytesOf(const Ran& ran, DeviceId src, DeviceId dst) {
  uint64_t bytes = 0;
  for (const StepReport& step : ran.log.steps) {
    for (const TrafficRow& row : step.traffic) {
      if (row.src != src || row.dst != dst) continue;
      bytes += row.bytes.value;
      EXPECT_EQ(row.path, PathKind::kCopy) << "the host's link";
    }
  }
  return bytes;
}

void ExpectTheSame(const EngineOptions& options, const std::string& what, Ran* kept = nullptr) {
  Ran want;
  RunThree(PluginOptions(options.model, "single", 1), want, nullptr);
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    FakeMachine machine(seed);
    Ran got;
    RunThree(options, got, &machine);
    for (size_t i = 0; i < want.recorders.size(); ++i) {
      ASSERT_EQ(got.recorders[i]->reason, FinishReason::kLength)
          << what << ": " << got.recorders[i]->error;
      EXPECT_EQ(got.recorders[i]->ids, want.recorders[i]->ids) << what << " order " << seed;
      EXPECT_TRUE(SameBits(got.recorders[i]->prompt_logits, want.recorders[i]->prompt_logits))
          << what << " order " << seed;
    }
    if (kept != nullptr && seed == 0) *kept = std::move(got);
  }
}

TEST(CpuBesideTest, LayersOnTheProcessorGiveTheLogitsOfOneDevice) {
  const auto model = testing::TinyModel(DType::kQ4_1, false);
  for (uint32_t cards : {1u, 2u}) {
    ExpectTheSame(Beside(model, "layer_split", cards), "layer_split");
    for (const char* beyond : {"stream", "cpu", "prefill_streams", "auto"}) {
      for (const char* resident : {"0", "1"}) {
        const EngineOptions options =
            Beside(model, "offload", cards, {{"beyond", beyond}, {"resident_layers", resident}});
        ExpectTheSame(options, std::string("offload ") + beyond + " with " + resident);
      }
    }
  }
}

TEST(CpuBesideTest, WhatCrossesIsOnTheHostsLink) {
  const auto model = testing::TinyModel(DType::kQ4_1, false);
  Ran ran;
  ExpectTheSame(Beside(model, "offload", 1, {{"beyond", "cpu"}, {"resident_layers", "1"}}), "cpu",
                &ran);
  uint64_t rows = 0, sampled = 0;
  for (const StepReport& step : ran.log.steps) {
    rows += step.shape.rows();
    sampled += step.shape.sampled();
  }
  const uint64_t row_bytes = uint64_t{model->config().hidden} * sizeof(float);
  EXPECT_EQ(BytesOf(ran, DeviceId{0}, DeviceId{1}), rows * row_bytes);
  EXPECT_EQ(BytesOf(ran, DeviceId{1}, DeviceId{0}), sampled * row_bytes)
      << "the last norm's rows to be sampled";
  EXPECT_EQ(BytesOf(ran, kHost, DeviceId{0}), 0u) << "nothing streams";
}

TEST(CpuBesideTest, SplitsThatReduceOrFetchThereAreRefused) {
  const auto model = testing::TinyModel();
  try {
    Engine::Create(Beside(model, "tensor_split", 1));
    FAIL() << "a reduce with the host's processor";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("host's own processor"));
  }
  EngineOptions fetches = Beside(model, "", 1);
  fetches.plan = testing::WeightGatherPlan(model->blocks(), 2);
  EXPECT_THROW(Engine::Create(fetches), Error);
  // Without a processor among the devices there is nothing to ask.
  EngineOptions none = PluginOptions(model, "offload", 1);
  none.knobs = {{"beyond", "cpu"}};
  try {
    Engine::Create(none);
    FAIL() << "no processor";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("--devices cuda:0,cpu"));
  }
}

}  // namespace
}  // namespace tandem
