// Steps recorded and replayed on devices that work on their own time: the same bits and the same
// rows in the ledger as steps that are asked for op by op, whatever order the queues are run in.
#include "engine/run/step_graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <new>

#include "engine/base/error.h"
#include "tests/run/engine_fixture.h"
#include "tests/support/fake_machine.h"

namespace tandem {
namespace {

using testing::FakeMachine;
using ::testing::HasSubstr;
using testing::MakeRequest;
using testing::On;
using testing::Prompt;
using testing::Recorder;
using testing::RunAll;

// What a run gave: ids with the bits of their log probabilities, and each step's hops.
struct Ran {
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<float>> logprobs;
  testing::StepLog log;
};

// `n` requests with prompts of different lengths, of which every second one wants log probabilities
// where `logprobs` says so; the batch grows and shrinks on the way.
std::unique_ptr<Ran> RunPrompts(const EngineOptions& options, const std::vector<uint32_t>& prompts,
                                uint32_t tokens, bool logprobs) {
  auto ran = std::make_unique<Ran>();
  std::unique_ptr<Engine> engine = Engine::Create(options);
  engine->AddObserver(&ran->log);
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (size_t i = 0; i < prompts.size(); ++i) {
    recorders.push_back(std::make_shared<Recorder>());
    Request request = MakeRequest(Prompt(prompts[i], static_cast<int32_t>(i)),
                                  tokens + 3 * static_cast<uint32_t>(i));
    request.logprobs = logprobs && i % 2 == 0 ? 2 : -1;
    engine->Submit(std::move(request), recorders.back());
  }
  RunAll(*engine);
  for (const auto& recorder : recorders) {
    EXPECT_EQ(recorder->reason, FinishReason::kLength) << recorder->error;
    ran->ids.push_back(recorder->ids);
    ran->logprobs.emplace_back();
    for (const TokenEvent& event : recorder->events) {
      ran->logprobs.back().push_back(event.logprob);
      for (const auto& [id, value] : event.top) ran->logprobs.back().push_back(value);
    }
  }
  return ran;
}

void ExpectTheSameHops(const Ran& got, const Ran& want) {
  ASSERT_EQ(got.log.steps.size(), want.log.steps.size());
  for (size_t s = 0; s < got.log.hops.size(); ++s) {
    ASSERT_EQ(got.log.hops[s].size(), want.log.hops[s].size()) << "step " << s;
    for (size_t i = 0; i < got.log.hops[s].size(); ++i) {
      const HopRow &a = got.log.hops[s][i], &b = want.log.hops[s][i];
      EXPECT_TRUE(a.phase == b.phase && a.op == b.op && a.kind == b.kind && a.block == b.block &&
                  a.src == b.src && a.dst == b.dst && a.path == b.path && a.wire == b.wire &&
                  a.bytes == b.bytes)
          << "step " << s << " row " << i;
    }
  }
}

size_t StepsBy(const Ran& ran, LaunchMode mode) {
  return static_cast<size_t>(
      std::count_if(ran.log.steps.begin(), ran.log.steps.end(),
                    [mode](const StepReport& step) { return step.launch == mode; }));
}

std::vector<Plan> Plans(const BlockGraph& graph) {
  return {testing::LayerSplitPlan(graph, 2, 3),
          testing::TensorSplitPlan(graph, {2, 1}),
          testing::OffloadPlan(graph),
          testing::ReplicasPlan(graph, 2),
          testing::SequenceParallelPlan(graph, {1, 1}),
          testing::WeightGatherPlan(graph, 2),
          testing::DisaggregatePlan(graph),
          testing::ReplicatedAttentionPlan(graph, 2, 2)};
}

TEST(StepGraphTest, ReplaysGiveTheBitsAndTheHopsOfEagerSteps) {
  const auto model = testing::TinyModel();
  const std::vector<Plan> plans = Plans(model->blocks());
  for (size_t i = 0; i < plans.size(); ++i) {
    const EngineOptions options = testing::TinyOptions(model, plans[i]);
    for (uint64_t seed = 0; seed < 3; ++seed) {
      SCOPED_TRACE("plan " + std::to_string(i) + " order " + std::to_string(seed));
      const bool logprobs = seed % 2 == 0;
      FakeMachine eager(seed), recorded(seed);
      EngineOptions off = On(eager, options);
      off.gpu.graphs = GraphUse::kOff;
      const auto want = RunPrompts(off, {41, 9, 5}, 8, logprobs);
      EXPECT_EQ(StepsBy(*want, LaunchMode::kGraph), 0u);
      EXPECT_EQ(eager.replays(), 0u);
      const auto got = RunPrompts(On(recorded, options), {41, 9, 5}, 8, logprobs);
      EXPECT_EQ(got->ids, want->ids);
      EXPECT_EQ(got->logprobs, want->logprobs);
      ExpectTheSameHops(*got, *want);
      const bool fetches = !RecordsSteps(plans[i].program(ProgramKind::kDecode, 0));
      EXPECT_EQ(StepsBy(*got, LaunchMode::kGraph) > 8, !fetches);
      EXPECT_GE(recorded.replays(), StepsBy(*got, LaunchMode::kGraph));
      EXPECT_EQ(RunPrompts(options, {41, 9, 5}, 8, logprobs)->ids, want->ids) << "the CPU";
    }
  }
}

TEST(StepGraphTest, LongerSequencesAreRecordedAnew) {
  const auto model = testing::TinyModel();
  FakeMachine machine(1), eager(1);
  EngineOptions options =
      testing::TinyOptions(model, testing::TensorSplitPlan(model->blocks(), {1, 1}));
  options.limits.context = 2 * 600;
  options.limits.max_sequences = 2;
  const auto got = RunPrompts(On(machine, options), {250, 120}, 12, false);
  EngineOptions off = On(eager, options);
  off.gpu.graphs = GraphUse::kOff;
  EXPECT_EQ(got->ids, RunPrompts(off, {250, 120}, 12, false)->ids);
  // One step of each kind is asked for op by op: two rows up to 256 positions and beyond, then one.
  size_t eager_decode = 0;
  for (const StepReport& step : got->log.steps) {
    eager_decode += step.phase == ProgramKind::kDecode && step.launch == LaunchMode::kEager ? 1 : 0;
  }
  EXPECT_EQ(eager_decode, 3u);
}

TEST(StepGraphTest, AStepReportsTimesOfItsOwn) {
  const auto model = testing::TinyModel();
  FakeMachine machine(2);
  const auto ran = RunPrompts(
      On(machine, testing::TinyOptions(model, testing::TensorSplitPlan(model->blocks(), {1, 1}))),
      {9}, 6, false);
  Nanos before;
  for (const StepReport& step : ran->log.steps) {
    if (step.launch != LaunchMode::kGraph) continue;
    EXPECT_GE(step.start, before);
    before = step.end;
    for (const DeviceAttribution& device : step.timeline.devices) {
      EXPECT_EQ(device.total(), step.timeline.length);
      EXPECT_GT(device.compute, Nanos{0});
      EXPECT_GT(device.exposed_comm, Nanos{0});
    }
    for (const OpTiming& op : step.timeline.ops) EXPECT_LE(op.end, step.timeline.length);
  }
  EXPECT_GT(before, Nanos{0});
}

TEST(StepGraphTest, DevicesThatCannotRecordRefuseGraphs) {
  const auto model = testing::TinyModel();
  EngineOptions options =
      testing::TinyOptions(model, testing::TensorSplitPlan(model->blocks(), {1, 1}));
  EXPECT_EQ(Engine::Create(options)->info().launch, LaunchMode::kEager);
  options.gpu.graphs = GraphUse::kOn;
  try {
    Engine::Create(options);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_THAT(error.what(), HasSubstr("--graphs"));
  }
  FakeMachine machine(0);
  EXPECT_EQ(Engine::Create(On(machine, options))->info().launch, LaunchMode::kGraph);
  options.plan = testing::OffloadPlan(model->blocks());
  try {
    Engine::Create(On(machine, options));
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("fetches weights"));
  }
}

// The path's transport, said not to be recordable.
class Unrecordable final : public Transport {
 public:
  explicit Unrecordable(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}
  PathKind mechanism() const override { return inner_->mechanism(); }
  PathKind path() const override { return inner_->path(); }
  void Copy(const CopyTask& task, TrafficLedger& ledger) override { inner_->Copy(task, ledger); }
  void CopyAll(std::span<const CopyTask> tasks, TrafficLedger& ledger) override {
    inner_->CopyAll(tasks, ledger);
  }

 private:
  std::unique_ptr<Transport> inner_;
};

TEST(StepGraphTest, AStepIsCutWhereATransportCannotBeRecorded) {
  const auto model = testing::TinyModel();
  for (uint64_t seed = 0; seed < 3; ++seed) {
    FakeMachine whole(seed), cut(seed);
    EngineOptions options =
        testing::TinyOptions(model, testing::TensorSplitPlan(model->blocks(), {1, 1}));
    const auto want = RunPrompts(On(whole, options), {9, 20}, 6, true);
    options.hooks.wrap_transport = [](std::unique_ptr<Transport> inner) {
      return std::make_unique<Unrecordable>(std::move(inner));
    };
    const auto got = RunPrompts(On(cut, options), {9, 20}, 6, true);
    EXPECT_EQ(got->ids, want->ids);
    EXPECT_EQ(got->logprobs, want->logprobs);
    ExpectTheSameHops(*got, *want);
    EXPECT_EQ(StepsBy(*got, LaunchMode::kGraph), StepsBy(*want, LaunchMode::kGraph));
    EXPECT_GT(cut.replays(), 3 * whole.replays()) << "a replay between two all-reduces";
  }
}

enum class Fault { kNone, kDevice, kMemory };

// A step fails while it is recorded; the next request's steps are recorded as ever.
void ExpectRecoveryFrom(Fault what, const std::vector<std::string>& texts) {
  const auto model = testing::TinyModel();
  FakeMachine machine(1);
  EngineOptions options =
      On(machine, testing::TinyOptions(model, testing::TensorSplitPlan(model->blocks(), {1, 1})));
  Fault fault = Fault::kNone;
  options.hooks.wrap_transport = [&fault](std::unique_ptr<Transport> inner) {
    class Failing final : public Transport {
     public:
      Failing(std::unique_ptr<Transport> inner, Fault& fault)
          : inner_(std::move(inner)), fault_(fault) {}
      PathKind mechanism() const override { return inner_->mechanism(); }
      PathKind path() const override { return inner_->path(); }
      bool recordable() const override { return true; }
      void Copy(const CopyTask& task, TrafficLedger& ledger) override {
        if (fault_ == Fault::kDevice) {
          Fail(ErrorCode::kDevice, "injected: no copy while recording");
        }
        if (fault_ == Fault::kMemory) throw std::bad_alloc();
        inner_->Copy(task, ledger);
      }

     private:
      std::unique_ptr<Transport> inner_;
      Fault& fault_;
    };
    return std::make_unique<Failing>(std::move(inner), fault);
  };
  std::unique_ptr<Engine> engine = Engine::Create(options);
  auto first = std::make_shared<Recorder>();
  engine->Submit(MakeRequest(Prompt(9), 8), first);
  // The prompt, and a first decode step that is asked for op by op.
  engine->Step();
  engine->Step();
  fault = what;
  engine->Step();
  EXPECT_EQ(first->reason, FinishReason::kError);
  for (const std::string& text : texts) EXPECT_THAT(first->error, HasSubstr(text));
  EXPECT_FALSE(machine.recording());
  fault = Fault::kNone;
  auto second = std::make_shared<Recorder>();
  engine->Submit(MakeRequest(Prompt(9), 8), second);
  RunAll(*engine);
  EXPECT_EQ(second->reason, FinishReason::kLength) << second->error;
  EXPECT_GT(machine.replays(), 0u);
}

TEST(StepGraphTest, AFailureWhileRecordingFailsTheStepAndSaysSo) {
  ExpectRecoveryFrom(Fault::kDevice, {"while the step was recorded", "op "});
}

TEST(StepGraphTest, MemoryThatRunsOutWhileRecordingFailsTheStepAlone) {
  ExpectRecoveryFrom(Fault::kMemory, {"bad_alloc"});
}

TEST(StepGraphsTest, TheOneReplayedLeastRecentlyGoes) {
  StepGraphs graphs(2);
  const auto key = [](uint32_t rows) { return StepGraphKey{.rows = {rows}}; };
  EXPECT_EQ(graphs.Find(key(1)), nullptr);
  EXPECT_EQ(graphs.Find(key(2)), nullptr);
  EXPECT_NE(graphs.Find(key(1)), nullptr);
  EXPECT_EQ(graphs.Find(key(3)), nullptr);
  EXPECT_EQ(graphs.size(), 2u);
  EXPECT_NE(graphs.Find(key(1)), nullptr) << "used since";
  EXPECT_EQ(graphs.Find(key(2)), nullptr) << "dropped";
  StepGraph* graph = graphs.Find(key(2));
  ASSERT_NE(graph, nullptr);
  graphs.Forget(graph);
  EXPECT_EQ(graphs.Find(key(2)), nullptr);
}

TEST(StepGraphsTest, KeysTellApartWhatTakesAnotherRecording) {
  const Program decode{.kind = ProgramKind::kDecode};
  const Program prefill{.kind = ProgramKind::kPrefill};
  const auto step = [](std::vector<uint32_t> starts) {
    Microbatch mb;
    for (uint32_t start : starts) {
      mb.sequences.push_back({.first_row = mb.shape.rows, .n_rows = 1, .start = start});
      ++mb.shape.rows;
      ++mb.shape.sampled;
    }
    return mb;
  };
  const auto key = [&](const Microbatch& mb, uint32_t top_k = 1) {
    StepGraphKey key;
    EXPECT_TRUE(KeyOfStep(decode, 3, std::span(&mb, 1), top_k, 512, key));
    return key;
  };
  EXPECT_EQ(key(step({1, 200})), key(step({255, 0})));
  EXPECT_FALSE(key(step({1, 200})) == key(step({256, 0})));
  EXPECT_EQ(key(step({256})), key(step({511})));
  EXPECT_EQ(key(step({512})).positions, 1024u);
  EXPECT_FALSE(key(step({1})) == key(step({1, 1})));
  EXPECT_FALSE(key(step({1})) == key(step({1}), 16));

  StepGraphKey unused;
  const Microbatch one = step({1});
  EXPECT_FALSE(KeyOfStep(prefill, 0, std::span(&one, 1), 1, 512, unused));
  EXPECT_TRUE(KeyOfStep(decode, 0, std::span(&one, 1), 1, 1, unused));
  const Microbatch many = step(std::vector<uint32_t>(100, 5));
  EXPECT_TRUE(KeyOfStep(decode, 0, std::span(&many, 1), 1, 200, unused));
  EXPECT_FALSE(KeyOfStep(decode, 0, std::span(&many, 1), 1, 199, unused)) << "several passes";
  Microbatch two = step({1, 2});
  two.sequences[0].n_rows = 2;
  EXPECT_FALSE(KeyOfStep(decode, 0, std::span(&two, 1), 1, 512, unused));
}

}  // namespace
}  // namespace tandem
