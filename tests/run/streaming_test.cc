// Weights that stream from the host's memory on devices that work on their own time: page-locked or
// through a ring, and ahead of the step that wants them. Logits are the CPU's to the bit, in
// whatever order the queues are run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/plan/lead_fetches.h"
#include "engine/run/engine_impl.h"
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
using testing::SameBits;
using testing::StepLog;
using testing::TinyModel;
using testing::TinyOptions;

constexpr uint64_t kSeeds = 6;

// Every block streams through two slots.
EngineOptions Streaming(const std::shared_ptr<const Model>& model) {
  EngineOptions options = TinyOptions(model, testing::OffloadPlan(model->blocks()));
  options.rig.gpus = {0};  // the memory table then knows of the ring
  return options;
}

// The CPU's: no GPU, no ring.
EngineOptions OnCpu(EngineOptions options) {
  options.rig.gpus.clear();
  return options;
}

// Room for half of the host's weights beside what a step needs.
Bytes HalfPinned(const EngineOptions& options) {
  const VerifyResult verified =
      VerifyOrFail(*options.plan, options.model->blocks(), options.rig, options.limits);
  const MemoryRow& host = verified.memory.rows.back();
  return host.workspace + Bytes{host.weights.value / 2};
}

struct Ran {
  std::vector<std::shared_ptr<Recorder>> recorders;
  StepLog log;
  Bytes pinned, pageable;
};

void RunThree(const EngineOptions& options, Ran& ran) {
  EngineImpl engine(options);
  engine.AddObserver(&ran.log);
  for (int32_t i = 0; i < 3; ++i) {
    ran.recorders.push_back(std::make_shared<Recorder>());
    ran.recorders.back()->vocab = options.model->config().vocab;
    engine.Submit(MakeRequest(Prompt(i == 0 ? 41 : 9, i), 5, i == 0), ran.recorders.back());
  }
  RunAll(engine);
  ran.pinned = engine.host().ledger().used(MemoryUse::kWeights);
}

void ExpectTheSame(const Ran& got, const Ran& want, const std::string& what) {
  for (size_t i = 0; i < want.recorders.size(); ++i) {
    ASSERT_EQ(got.recorders[i]->reason, FinishReason::kLength)
        << what << ": " << got.recorders[i]->error;
    EXPECT_EQ(got.recorders[i]->ids, want.recorders[i]->ids) << what;
    EXPECT_TRUE(SameBits(got.recorders[i]->prompt_logits, want.recorders[i]->prompt_logits))
        << what;
  }
}

uint64_t BytesOf(const StepReport& step, DeviceId src, DeviceId dst) {
  uint64_t bytes = 0;
  for (const TrafficRow& row : step.traffic) {
    if (row.src == src && row.dst == dst) bytes += row.bytes.value;
  }
  return bytes;
}

TEST(StreamingTest, PageLockedOrThroughTheRingTheLogitsAreTheCpusToTheBit) {
  const auto model = TinyModel(DType::kQ4_1, false);
  EngineOptions options = Streaming(model);
  Ran want;
  RunThree(OnCpu(options), want);
  for (const bool half : {false, true}) {
    options.pinned_limit = half ? HalfPinned(options) : Bytes{};
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      FakeMachine machine(seed);
      Ran got;
      RunThree(On(machine, options), got);
      const std::string what =
          (half ? "half pinned, order " : "all pinned, order ") + std::to_string(seed);
      ExpectTheSame(got, want, what);
      EXPECT_GT(got.pinned, Bytes{});
      for (size_t i = 0; i < got.log.steps.size(); ++i) {
        const StepReport& step = got.log.steps[i];
        EXPECT_EQ(BytesOf(step, kHost, DeviceId{0}), BytesOf(want.log.steps[i], kHost, DeviceId{0}))
            << what << ": each step books what its plan moves, ahead or not";
        const uint64_t staged = BytesOf(step, kHost, kHost);
        EXPECT_EQ(staged > 0, half) << what;
        EXPECT_LT(staged, BytesOf(step, kHost, DeviceId{0})) << what;
      }
    }
  }
}

// From the second step on, the first fetches of a step have begun before it has.
TEST(StreamingTest, TheCopyQueueIsBusyAcrossTheStepsBoundary) {
  const auto model = TinyModel(DType::kQ8_0, false);
  const EngineOptions options = Streaming(model);
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    FakeMachine machine(seed);
    Ran ran;
    RunThree(On(machine, options), ran);
    ASSERT_GT(ran.log.steps.size(), 3u);
    for (size_t i = 0; i < ran.log.steps.size(); ++i) {
      const StepReport& step = ran.log.steps[i];
      const Program& program = options.plan->program(step.phase, 0);
      uint32_t ahead = 0;
      for (size_t op = 0; op < program.ops.size(); ++op) {
        const OpTiming& timing = step.timeline.ops[op];
        if (timing.start < Nanos{0}) ++ahead;
        EXPECT_TRUE(timing.start >= Nanos{0} || program.ops[op].kind == OpKind::kFetch) << op;
        EXPECT_LE(timing.start, timing.end) << op;
      }
      EXPECT_EQ(ahead, i == 0 ? 0u : 2u) << "step " << i << " order " << seed;
      EXPECT_EQ(step.timeline.devices[0].total(), step.timeline.length);
    }
  }
}

TEST(StreamingTest, AStepThatFailsLeavesNothingInTheSlots) {
  const auto model = TinyModel(DType::kQ4_1, false);
  EngineOptions options = Streaming(model);
  const auto want = testing::RunOne(OnCpu(options), MakeRequest(Prompt(9), 4));
  // A fault that passes: the copy of a fetch fails once, at each place in turn.
  for (int fail_at : {1, 6, 9, 14, 20}) {
    FakeMachine machine(static_cast<uint64_t>(fail_at));
    EngineOptions faulty = On(machine, options);
    auto left = std::make_shared<int>(-1);
    faulty.hooks.wrap_transport = [left](std::unique_ptr<Transport> inner) {
      class Failing final : public Transport {
       public:
        Failing(std::unique_ptr<Transport> wrapped, std::shared_ptr<int> count)
            : inner_(std::move(wrapped)), left_(std::move(count)) {}
        PathKind mechanism() const override { return inner_->mechanism(); }
        PathKind path() const override { return inner_->path(); }
        void Copy(const CopyTask& task, TrafficLedger& ledger) override {
          if (*left_ >= 0 && (*left_)-- == 0) Fail(ErrorCode::kDevice, "injected");
          inner_->Copy(task, ledger);
        }

       private:
        std::unique_ptr<Transport> inner_;
        std::shared_ptr<int> left_;
      };
      return std::make_unique<Failing>(std::move(inner), left);
    };
    std::unique_ptr<Engine> engine = Engine::Create(faulty);
    *left = fail_at;
    auto failed = std::make_shared<Recorder>();
    engine->Submit(MakeRequest(Prompt(9), 4), failed);
    RunAll(*engine);
    EXPECT_EQ(failed->reason, FinishReason::kError) << fail_at;
    EXPECT_THAT(failed->error, HasSubstr("injected"));
    auto after = std::make_shared<Recorder>();
    engine->Submit(MakeRequest(Prompt(9), 4), after);
    RunAll(*engine);
    EXPECT_EQ(after->reason, FinishReason::kLength) << after->error;
    EXPECT_EQ(after->ids, want->ids) << fail_at;
  }
}

TEST(StreamingTest, ALimitThatLeavesNoRoomForAStepIsRefusedWithTheFigures) {
  const auto model = TinyModel();
  EngineOptions options = Streaming(model);
  FakeMachine machine(0);
  const VerifyResult verified =
      VerifyOrFail(*options.plan, model->blocks(), options.rig, options.limits);
  const uint64_t workspace = verified.memory.rows.back().workspace.value;
  options.pinned_limit = Bytes{workspace - 1};
  try {
    Engine::Create(On(machine, options));
    FAIL() << "a limit below the workspace";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDevice);
    EXPECT_THAT(error.what(), HasSubstr(std::to_string(workspace)));
    EXPECT_THAT(error.what(), HasSubstr(std::to_string(workspace - 1)));
    EXPECT_THAT(error.what(), HasSubstr("--pinned-memory"));
  }
  options.pinned_limit = Bytes{workspace};
  EXPECT_NO_THROW(Engine::Create(On(machine, options))) << "everything through the ring";
}

// What begins ahead: the first fetch into each slot, where both programs agree on it.
TEST(LeadFetchesTest, AreThoseThatWhateverStepComesNextBeginsWith) {
  const auto model = TinyModel(DType::kQ4_1, false);
  const BlockGraph& graph = model->blocks();
  Plan plan = testing::OffloadPlan(graph);
  const auto leads = [&](size_t program) {
    const VerifyResult verified = VerifyOrFail(plan, graph, testing::TestRig(1), PlanLimits{});
    return LeadFetchesOf(plan, plan.programs[program], verified.programs[program]);
  };
  for (size_t program : {size_t{0}, size_t{1}}) {
    const std::vector<LeadFetch> both = leads(program);
    ASSERT_EQ(both.size(), 2u);
    const std::vector<Op>& ops = plan.programs[program].ops;
    for (const LeadFetch& lead : both) {
      EXPECT_EQ(ops[lead.op].kind, OpKind::kFetch);
      EXPECT_EQ(ops[lead.op].block.value, lead.slot) << "slots are filled in turn";
      EXPECT_EQ(ops[lead.last_use].kind, OpKind::kRun);
    }
  }
  // A decode step that begins with another block in slot 0: what comes next is not known.
  std::vector<Op>& decode = plan.programs[1].ops;
  const auto other = std::find_if(decode.begin() + 1, decode.end(), [](const Op& op) {
    return op.kind == OpKind::kFetch && op.slot == SlotId{0};
  });
  Op extra = *other;
  decode.insert(decode.begin(), extra);
  for (size_t program : {size_t{0}, size_t{1}}) {
    const std::vector<LeadFetch> one = leads(program);
    ASSERT_EQ(one.size(), 1u);
    EXPECT_EQ(one[0].slot, 1u);
  }
}

}  // namespace
}  // namespace tandem
