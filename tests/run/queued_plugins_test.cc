// Every shipped plugin on devices that work on their own time and let nobody look into their memory
// (tests/support/fake_machine.h): the logits of the same plan on the CPU, to the bit, whatever
// order the queues are run in; and what a step on them reports.
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
using testing::On;
using testing::PluginOptions;
using testing::Prompt;
using testing::Recorder;
using testing::RunAll;
using testing::SameBits;

constexpr uint64_t kSeeds = 4;

// A long prompt whose every row is scored, and two short ones beside it, to the end.
std::vector<std::shared_ptr<Recorder>> RunThree(const EngineOptions& options) {
  std::unique_ptr<Engine> engine = Engine::Create(options);
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (int32_t i = 0; i < 3; ++i) {
    recorders.push_back(std::make_shared<Recorder>());
    recorders.back()->vocab = options.model->config().vocab;
    engine->Submit(MakeRequest(Prompt(i == 0 ? 41 : 9, i), 5, i == 0), recorders.back());
  }
  RunAll(*engine);
  return recorders;
}

void ExpectTheSame(const EngineOptions& options, const std::string& what) {
  const auto want = RunThree(options);
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    FakeMachine machine(seed);
    const auto got = RunThree(On(machine, options));
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_EQ(got[i]->reason, FinishReason::kLength) << what << ": " << got[i]->error;
      EXPECT_EQ(got[i]->ids, want[i]->ids) << what << " order " << seed;
      EXPECT_TRUE(SameBits(got[i]->prompt_logits, want[i]->prompt_logits))
          << what << " order " << seed;
    }
    EXPECT_GT(machine.items_run(), 0u);
  }
}

TEST(QueuedPluginsTest, EveryPluginGivesTheCpusLogitsToTheBit) {
  const auto model = testing::TinyModel();
  for (const char* plugin : {TANDEM_PLUGIN_NAMES}) {
    for (uint32_t devices : {1u, 2u, 3u}) {
      const EngineOptions options = PluginOptions(model, plugin, devices);
      try {
        Engine::Create(options);
      } catch (const Error&) {
        EXPECT_EQ(devices, 1u) << plugin;  // it wants two devices
        continue;
      }
      ExpectTheSame(options, std::string(plugin) + " on " + std::to_string(devices));
    }
  }
}

TEST(QueuedPluginsTest, EveryWireAndPathGivesTheCpusLogitsToTheBit) {
  const auto model = testing::TinyModel();
  for (WireType wire : {WireType::kF32, WireType::kBf16, WireType::kQ8}) {
    for (PathKind path : {PathKind::kLocal, PathKind::kHostStaged}) {
      for (const char* plugin : {"tensor_split", "layer_split"}) {
        EngineOptions options = PluginOptions(model, plugin, 2);
        options.wire = wire;
        options.path = path;
        ExpectTheSame(options, std::string(plugin) + " " + ToString(wire) + " " + ToString(path));
      }
    }
  }
}

// Plans that the plugins do not make: KV that moves, token shards, runs whose weights lie in
// several pieces, a two-shot all-reduce.
TEST(QueuedPluginsTest, HandWrittenPlansGiveTheCpusLogitsToTheBit) {
  const auto model = testing::TinyModel();
  const BlockGraph& graph = model->blocks();
  const std::vector<Plan> plans{testing::LayerSplitPlan(graph, 2, 3),
                                testing::TensorSplitPlan(graph, {2, 1}),
                                testing::OffloadPlan(graph),
                                testing::ReplicasPlan(graph, 2),
                                testing::SequenceParallelPlan(graph, {1, 1}),
                                testing::WeightGatherPlan(graph, 2),
                                testing::DisaggregatePlan(graph),
                                testing::ReplicatedAttentionPlan(graph, 2, 2)};
  for (size_t i = 0; i < plans.size(); ++i) {
    ExpectTheSame(testing::TinyOptions(model, plans[i]), "plan " + std::to_string(i));
  }
}

TEST(QueuedPluginsTest, AStepReportsWhatTheDevicesSay) {
  const auto model = testing::TinyModel();
  FakeMachine machine(1);
  EngineOptions options = On(machine, PluginOptions(model, "tensor_split", 2));
  std::unique_ptr<Engine> engine = Engine::Create(options);
  testing::StepLog log;
  engine->AddObserver(&log);
  auto recorder = std::make_shared<Recorder>();
  engine->Submit(MakeRequest(Prompt(9), 3), recorder);
  RunAll(*engine);
  ASSERT_EQ(log.steps.size(), 3u);
  for (const StepReport& step : log.steps) {
    const Timeline& timeline = step.timeline;
    EXPECT_GE(timeline.length, step.wall);
    ASSERT_EQ(timeline.devices.size(), 2u);
    for (const DeviceAttribution& device : timeline.devices) {
      EXPECT_EQ(device.total(), timeline.length) << "the parts of a step are the step";
      EXPECT_GT(device.compute, Nanos{0});
      EXPECT_GT(device.exposed_comm, Nanos{0}) << "an all-reduce hides behind nothing here";
    }
    EXPECT_GT(timeline.link_busy, Nanos{0});
    const Program& program = engine->info().planned.plan.program(step.phase, 0);
    for (size_t i = 0; i < program.ops.size(); ++i) {
      EXPECT_LE(timeline.ops[i].start, timeline.ops[i].end) << i;
      EXPECT_LE(timeline.ops[i].end, timeline.length) << i;
    }
  }
  // What a greedy choice takes crosses to the host, not the logits.
  uint64_t to_host = 0;
  for (const TrafficRow& row : log.steps[1].traffic) {
    if (row.dst.IsHost()) to_host += row.bytes.value;
  }
  EXPECT_EQ(to_host, sizeof(TopEntry));
}

// Bytes to the host in the last decode step of one request, which must choose the ids that the CPU
// does.
uint64_t BytesToChoose(const Request& request) {
  const auto model = testing::TinyModel();
  std::vector<std::vector<int32_t>> ids;
  uint64_t bytes = 0;
  for (bool fake : {false, true}) {
    FakeMachine machine(1);
    EngineOptions options = PluginOptions(model, "tensor_split", 2);
    if (fake) options = On(machine, options);
    std::unique_ptr<Engine> engine = Engine::Create(options);
    testing::StepLog log;
    engine->AddObserver(&log);
    auto recorder = std::make_shared<Recorder>();
    engine->Submit(request, recorder);
    RunAll(*engine);
    EXPECT_EQ(recorder->reason, FinishReason::kLength) << recorder->error;
    ids.push_back(recorder->ids);
    bytes = 0;
    for (const TrafficRow& row : log.steps.back().traffic) {
      if (row.dst.IsHost()) bytes += row.bytes.value;
    }
  }
  EXPECT_EQ(ids[0], ids[1]);
  return bytes;
}

TEST(QueuedPluginsTest, LogitsCrossToTheHostOnlyWhereTheyAreNeeded) {
  const uint64_t all = uint64_t{testing::TinyModel()->config().vocab} * sizeof(float);
  Request request = MakeRequest(Prompt(9), 12);
  EXPECT_EQ(BytesToChoose(request), sizeof(TopEntry));
  request.sampling.temperature = 1.5;
  request.sampling.seed = 7;
  EXPECT_EQ(BytesToChoose(request), all) << "a draw among all tokens";
  request.sampling.top_k = 5;
  EXPECT_EQ(BytesToChoose(request), 16 * sizeof(TopEntry));
  request.sampling.top_p = 0.9;
  request.sampling.min_p = 0.01;
  request.sampling.top_k = 20;
  EXPECT_EQ(BytesToChoose(request), 32 * sizeof(TopEntry));
  request.sampling.frequency_penalty = 0.5;
  EXPECT_EQ(BytesToChoose(request), all) << "penalties change any logit";
  request.sampling = {};
  request.logprobs = 2;
  EXPECT_EQ(BytesToChoose(request), all);
}

TEST(QueuedPluginsTest, BytesBetweenDevicesAreThoseOfTheCpu) {
  const auto model = testing::TinyModel();
  for (const char* plugin : {"tensor_split", "layer_split"}) {
    std::vector<uint64_t> bytes;
    for (bool fake : {false, true}) {
      FakeMachine machine(2);
      EngineOptions options = PluginOptions(model, plugin, 2);
      if (fake) options = On(machine, options);
      std::unique_ptr<Engine> engine = Engine::Create(options);
      auto recorder = std::make_shared<Recorder>();
      engine->Submit(MakeRequest(Prompt(9), 3), recorder);
      RunAll(*engine);
      bytes.push_back(recorder->stats.decode.link_bytes.value);
    }
    EXPECT_GT(bytes[0], 0u) << plugin;
    EXPECT_EQ(bytes[0], bytes[1]) << plugin;
  }
}

TEST(QueuedPluginsTest, ADeviceThatIsLostIsReportedOnceAndFailsEveryRequest) {
  const auto model = testing::TinyModel();
  FakeMachine machine(3);
  EngineOptions options = On(machine, PluginOptions(model, "layer_split", 2));
  std::vector<std::string> told;
  options.on_device_lost = [&](const std::string& why) { told.push_back(why); };
  std::unique_ptr<Engine> engine = Engine::Create(options);
  machine.FailIn(20);
  for (int i = 0; i < 2; ++i) {
    auto recorder = std::make_shared<Recorder>();
    engine->Submit(MakeRequest(Prompt(9), 3), recorder);
    RunAll(*engine);
    EXPECT_EQ(recorder->reason, FinishReason::kError);
    EXPECT_THAT(recorder->error, HasSubstr("fell off the bus"));
  }
  ASSERT_EQ(told.size(), 1u);
  EXPECT_THAT(told[0], HasSubstr("fell off the bus"));
}

// The double itself: what it is there to catch, it catches.
// Says once, at the end of a step, that its kernels gave up.
class GivesUp final : public Transport {
 public:
  explicit GivesUp(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}
  PathKind mechanism() const override { return inner_->mechanism(); }
  PathKind path() const override { return inner_->path(); }
  void Copy(const CopyTask& task, TrafficLedger& ledger) override { inner_->Copy(task, ledger); }
  std::optional<TransportFailure> TakeFailure() override {
    if (steps_++ != 1) return std::nullopt;
    return TransportFailure{.op = 3, .what = "device 0 waited for device 1, which never came"};
  }

 private:
  std::unique_ptr<Transport> inner_;
  int steps_ = 0;
};

TEST(QueuedPluginsTest, ACollectiveThatGaveUpFailsTheStepAndNamesTheOp) {
  FakeMachine machine(1);
  EngineOptions options = On(machine, PluginOptions(testing::TinyModel(), "tensor_split", 2));
  options.hooks.wrap_transport = [](std::unique_ptr<Transport> inner) {
    return std::make_unique<GivesUp>(std::move(inner));
  };
  std::unique_ptr<Engine> engine = Engine::Create(options);
  const auto failed = std::make_shared<Recorder>();
  engine->Submit(MakeRequest(Prompt(9), 5, false), failed);
  RunAll(*engine);
  EXPECT_EQ(failed->reason, FinishReason::kError);
  EXPECT_THAT(failed->error, HasSubstr("device 1, which never came (in op 3 of the step: "));
  const auto after = std::make_shared<Recorder>();
  engine->Submit(MakeRequest(Prompt(9), 5, false), after);
  RunAll(*engine);
  EXPECT_EQ(after->reason, FinishReason::kLength) << after->error;
}

TEST(FakeMachineDeathTest, TheHostCannotLookIntoADevice) {
  FakeMachine machine(0);
  const auto device = machine.MakeDevice(DeviceId{0}, Bytes{});
  const Buffer buffer = device->Allocate(MemoryUse::kWorkspace, Bytes{64}, "test");
  EXPECT_DEATH(buffer.data()[0] = std::byte{1}, "");
}

TEST(FakeMachineTest, AMissingWaitIsSeenInSomeOrder) {
  const auto run = [](uint64_t seed, bool wait) {
    FakeMachine machine(seed);
    const auto device = machine.MakeDevice(DeviceId{0}, Bytes{});
    const Buffer buffer = device->Allocate(MemoryUse::kWorkspace, Bytes{64}, "test");
    DeviceQueue& first = *device->queue(QueueRole::kCompute);
    DeviceQueue& then = *device->queue(QueueRole::kCopyOut);
    const std::unique_ptr<DeviceEvent> made = first.MakeEvent();
    std::byte source{7}, got{0};
    first.Copy({.to = buffer.data(), .from = &source, .row_bytes = 1});
    first.Mark(*made);
    if (wait) then.WaitFor(*made);
    then.Copy({.to = &got, .from = buffer.data(), .row_bytes = 1});
    then.Finish();
    first.Finish();
    return got == source;
  };
  int wrong = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    EXPECT_TRUE(run(seed, true)) << seed;
    wrong += run(seed, false) ? 0 : 1;
  }
  EXPECT_GT(wrong, 0);
}

}  // namespace
}  // namespace tandem
