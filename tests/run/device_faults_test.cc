// Devices that fail under a running engine: memory that runs out as sequences grow, and devices
// that are lost for good.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/run/engine_fixture.h"
#include "tests/support/fake_machine.h"

namespace tandem {
namespace {

using testing::FakeMachine;
using ::testing::HasSubstr;
using testing::MakeRequest;
using testing::Prompt;
using testing::Recorder;
using testing::RunAll;

EngineOptions On(FakeMachine& machine) {
  const auto model = testing::TinyModel();
  return testing::On(
      machine, testing::TinyOptions(model, testing::TensorSplitPlan(model->blocks(), {1, 1})));
}

std::shared_ptr<Recorder> RunOn(Engine& engine, uint32_t prompt, uint32_t tokens) {
  auto recorder = std::make_shared<Recorder>();
  engine.Submit(MakeRequest(Prompt(prompt), tokens), recorder);
  RunAll(engine);
  EXPECT_TRUE(recorder->done);
  return recorder;
}

TEST(DeviceFaultsTest, ARequestThatOutgrowsTheMemoryIsRefusedAndTheServerLives) {
  for (GraphUse graphs : {GraphUse::kAuto, GraphUse::kOff}) {
    FakeMachine plenty(1), machine(1);
    const auto want = RunOn(*Engine::Create(On(plenty)), 9, 6);
    EngineOptions options = On(machine);
    options.gpu.graphs = graphs;
    // What the plan takes, and 4 KiB for what grows.
    const MemoryTable table = Engine::Create(options)->info().planned.verified.memory;
    for (const MemoryRow& row : table.rows) {
      if (row.device.IsHost()) continue;
      options.rig.devices[static_cast<size_t>(row.device.value)].memory = row.total() + Bytes{4096};
    }
    std::vector<std::string> lost;
    options.on_device_lost = [&](const std::string& why) { lost.push_back(why); };
    std::unique_ptr<Engine> engine = Engine::Create(options);
    machine.HoldTables(128);
    EXPECT_EQ(RunOn(*engine, 9, 6)->ids, want->ids);

    const auto refused = RunOn(*engine, 100, 20);
    EXPECT_EQ(refused->reason, FinishReason::kError);
    EXPECT_THAT(refused->error, HasSubstr("do not fit"));
    EXPECT_THAT(refused->error, HasSubstr("attention's tables"));
    EXPECT_THAT(refused->error, HasSubstr("op "));
    EXPECT_EQ(engine->counters().kv_pages_used, 0u) << "its pages are free again";

    const auto after = RunOn(*engine, 9, 6);
    EXPECT_EQ(after->reason, FinishReason::kLength) << after->error;
    EXPECT_EQ(after->ids, want->ids);
    EXPECT_TRUE(lost.empty()) << "a device without room is not lost";
  }
}

TEST(DeviceFaultsTest, ALostDeviceIsToldOnceWithWhatItRan) {
  for (GraphUse graphs : {GraphUse::kAuto, GraphUse::kOff}) {
    FakeMachine machine(3);
    EngineOptions options = On(machine);
    options.gpu.graphs = graphs;
    std::vector<std::string> told;
    options.on_device_lost = [&](const std::string& why) { told.push_back(why); };
    std::unique_ptr<Engine> engine = Engine::Create(options);
    auto first = std::make_shared<Recorder>();
    engine->Submit(MakeRequest(Prompt(9), 50), first);
    for (int step = 0; step < 5; ++step) engine->Step();
    EXPECT_EQ(machine.replays() > 0, graphs == GraphUse::kAuto);
    machine.FailIn(20);
    RunAll(*engine);
    EXPECT_EQ(first->reason, FinishReason::kError);
    EXPECT_THAT(first->error, HasSubstr("decode step of 1 rows"));
    const auto second = RunOn(*engine, 9, 3);
    EXPECT_EQ(second->reason, FinishReason::kError);
    ASSERT_EQ(told.size(), 1u);
    EXPECT_EQ(told[0], first->error);
  }
}

}  // namespace
}  // namespace tandem
