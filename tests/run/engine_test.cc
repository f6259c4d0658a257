// The engine's promises to its front ends: bad requests, queues, cancellation, failing steps,
// memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/error.h"
#include "engine/plan/memory.h"
#include "engine/run/engine_impl.h"
#include "tests/run/emulated_rig.h"
#include "tests/run/engine_fixture.h"
#include "tests/run/fault_ops.h"

namespace tandem {
namespace {

using testing::FaultOps;
using testing::FaultPlan;
using ::testing::HasSubstr;
using testing::MakeRequest;
using testing::Prompt;
using testing::Recorder;
using testing::RunAll;
using testing::TinyModel;
using testing::TinyOptions;

EngineOptions Single(std::shared_ptr<const Model> model = TinyModel()) {
  Plan plan = testing::SinglePlan(model->blocks());
  return TinyOptions(std::move(model), std::move(plan));
}

template <typename Call>
void ExpectError(ErrorCode code, const char* text, const Call& call) {
  try {
    call();
    ADD_FAILURE() << "no error; wanted one that says: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(text));
  }
}

void ExpectNothingHeld(const Engine& engine) {
  const EngineCounters counters = engine.counters();
  EXPECT_EQ(counters.running, 0u);
  EXPECT_EQ(counters.waiting, 0u);
  EXPECT_EQ(counters.kv_pages_used, 0u);
}

TEST(EngineTest, RefusesBadRequests) {
  auto engine = Engine::Create(Single());
  const auto submit = [&](Request request) {
    return [&engine, request] { engine->Submit(request, std::make_shared<Recorder>()); };
  };
  ExpectError(ErrorCode::kInvalidArgument, "no tokens", submit(MakeRequest({}, 4)));
  ExpectError(ErrorCode::kInvalidArgument, "token id 200", submit(MakeRequest({1, 200}, 4)));
  ExpectError(ErrorCode::kInvalidArgument, "token id -1", submit(MakeRequest({-1}, 4)));
  ExpectError(ErrorCode::kInvalidArgument, "context of 128", submit(MakeRequest(Prompt(128), 1)));
  Request hot = MakeRequest({1}, 4);
  hot.sampling.temperature = std::numeric_limits<double>::quiet_NaN();
  ExpectError(ErrorCode::kInvalidArgument, "temperature", submit(hot));
  Request biased = MakeRequest({1}, 4);
  biased.sampling.logit_bias = {{500, 1.0f}};
  ExpectError(ErrorCode::kInvalidArgument, "logit_bias", submit(biased));
  EXPECT_FALSE(engine->HasWork());
}

TEST(EngineTest, RefusesImpossibleOptions) {
  ExpectError(ErrorCode::kInvalidArgument, "-np", [] {
    EngineOptions options = Single();
    options.limits.max_sequences = 0;
    Engine::Create(options);
  });
  ExpectError(ErrorCode::kInvalidArgument, "no weights", [] {
    EngineOptions options = Single();
    SyntheticSpec spec{.config = testing::TinyConfig()};
    options.model = MakeShapeOnlyModel(spec);
    Engine::Create(options);
  });
  ExpectError(ErrorCode::kPlan, "d1", [] {
    EngineOptions options = Single();
    options.plan->places[0].device = DeviceId{1};
    Engine::Create(options);
  });
}

TEST(EngineTest, EndsAtTheContext) {
  const auto got = testing::RunOne(Single(), MakeRequest(Prompt(120), 1000));
  EXPECT_EQ(got->reason, FinishReason::kLength);
  EXPECT_EQ(got->ids.size(), 8u) << "128 tokens a slot";
}

TEST(EngineTest, ZeroTokensPrefillsAlone) {
  const auto got = testing::RunOne(Single(), MakeRequest(Prompt(128), 0, true));
  EXPECT_EQ(got->reason, FinishReason::kLength);
  EXPECT_TRUE(got->ids.empty());
  EXPECT_EQ(got->prompt_logits.size(), 128u * 200u);
  EXPECT_EQ(got->stats.decode.steps, 0u);
}

TEST(EngineTest, QueueIsBounded) {
  EngineOptions options = Single();
  options.max_queue = 2;
  auto engine = Engine::Create(options);
  std::vector<std::shared_ptr<Recorder>> all;
  for (int i = 0; i < 6; ++i) {  // four slots, two waiting
    all.push_back(std::make_shared<Recorder>());
    engine->Submit(MakeRequest({1, 2, 3}, 4), all.back());
  }
  ExpectError(ErrorCode::kOverloaded, "try again",
              [&] { engine->Submit(MakeRequest({1}, 1), std::make_shared<Recorder>()); });
  engine->Step();
  EXPECT_EQ(engine->counters().waiting, 2u);
  EXPECT_EQ(engine->counters().running, 4u);
  RunAll(*engine);
  for (const auto& recorder : all) EXPECT_EQ(recorder->reason, FinishReason::kLength);
  EXPECT_EQ(engine->counters().finished_length, 6u);
  ExpectNothingHeld(*engine);
}

TEST(EngineTest, CancelsInQueueInPrefillAndInDecode) {
  auto engine = Engine::Create(Single());
  const auto start = [&](size_t prompt) {
    auto recorder = std::make_shared<Recorder>();
    return std::make_pair(engine->Submit(MakeRequest(Prompt(prompt), 20), recorder), recorder);
  };
  auto [prefill_id, in_prefill] = start(100);  // chunks of 32
  engine->Step();
  EXPECT_GT(engine->counters().kv_pages_used, 0u);
  engine->Cancel(prefill_id);
  engine->Step();
  EXPECT_EQ(in_prefill->reason, FinishReason::kCancelled);
  EXPECT_TRUE(in_prefill->ids.empty());
  ExpectNothingHeld(*engine);

  auto [decode_id, in_decode] = start(5);
  for (int i = 0; i < 4; ++i) engine->Step();
  EXPECT_EQ(in_decode->ids.size(), 4u);
  engine->Cancel(decode_id);
  engine->Step();
  EXPECT_EQ(in_decode->reason, FinishReason::kCancelled);
  EXPECT_EQ(in_decode->ids.size(), 4u);
  ExpectNothingHeld(*engine);

  std::vector<std::pair<RequestId, std::shared_ptr<Recorder>>> many;
  for (int i = 0; i < 5; ++i) many.push_back(start(5));
  engine->Step();
  engine->Cancel(many[4].first);
  engine->Cancel(12345);  // never heard of
  engine->Step();
  EXPECT_EQ(many[4].second->reason, FinishReason::kCancelled);
  engine->CancelAll();
  engine->Step();
  for (const auto& [id, recorder] : many) EXPECT_EQ(recorder->reason, FinishReason::kCancelled);
  EXPECT_FALSE(engine->HasWork());
  ExpectNothingHeld(*engine);
}

TEST(EngineTest, AFailingStepFailsItsRequestsAlone) {
  auto faults = std::make_shared<FaultPlan>();
  EngineOptions options = Single();
  options.hooks.wrap_ops = [faults](std::unique_ptr<Ops> ops) {
    return std::make_unique<FaultOps>(std::move(ops), faults);
  };
  auto engine = Engine::Create(options);
  const auto want = testing::RunOne(Single(), MakeRequest(Prompt(9), 6));
  for (int fail_in : {0, 5, 9, 20}) {
    auto broken = std::make_shared<Recorder>();
    faults->fail_matmul_in = fail_in;
    engine->Submit(MakeRequest(Prompt(9), 6), broken);
    RunAll(*engine);
    EXPECT_EQ(broken->reason, FinishReason::kError);
    EXPECT_THAT(broken->error, HasSubstr("fell off the bus"));
    ExpectNothingHeld(*engine);
    auto after = std::make_shared<Recorder>();
    engine->Submit(MakeRequest(Prompt(9), 6), after);
    RunAll(*engine);
    EXPECT_EQ(after->ids, want->ids) << "the engine goes on as if nothing had happened";
  }
}

TEST(EngineTest, ANanFailsItsRequestAndNoOther) {
  auto faults = std::make_shared<FaultPlan>();
  faults->vocab = 200;
  EngineOptions options = Single();
  options.hooks.wrap_ops = [faults](std::unique_ptr<Ops> ops) {
    return std::make_unique<FaultOps>(std::move(ops), faults);
  };
  auto engine = Engine::Create(options);
  auto first = std::make_shared<Recorder>();
  auto second = std::make_shared<Recorder>();
  engine->Submit(MakeRequest(Prompt(9), 6), first);
  engine->Submit(MakeRequest(Prompt(9, 3), 6), second);
  engine->Step();
  faults->poison_head = true;  // the first row of the next step: slot 0
  RunAll(*engine);
  EXPECT_EQ(first->reason, FinishReason::kError);
  EXPECT_THAT(first->error, HasSubstr("not a number"));
  EXPECT_EQ(second->reason, FinishReason::kLength);
  EXPECT_EQ(second->ids.size(), 6u);
  ExpectNothingHeld(*engine);
}

// Flips a byte of every message between devices.
class Lying final : public Transport {
 public:
  explicit Lying(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}
  PathKind mechanism() const override { return inner_->mechanism(); }
  PathKind path() const override { return inner_->path(); }
  void Copy(const CopyTask& task, TrafficLedger& ledger) override {
    inner_->Copy(task, ledger);
    if (!task.src.IsHost() && !task.dst.IsHost()) task.to[0] ^= std::byte{0x80};
  }

 private:
  std::unique_ptr<Transport> inner_;
};

TEST(EngineTest, AWrongLinkIsFoundBeforeTheFirstRun) {
  const auto model = TinyModel();
  EngineOptions options = TinyOptions(model, testing::LayerSplitPlan(model->blocks(), 2, 1));
  options.hooks.wrap_transport = [](std::unique_ptr<Transport> inner) {
    return std::make_unique<Lying>(std::move(inner));
  };
  ExpectError(ErrorCode::kDevice, "self-test", [&] { Engine::Create(options); });
}

TEST(EngineTest, NamesThePathsItTakes) {
  const auto model = TinyModel();
  const auto names = [&](Plan plan, Rig rig) {
    EngineOptions options = TinyOptions(model, std::move(plan));
    options.rig = std::move(rig);
    options.op_times = OpTimes::kModelled;
    return Engine::Create(options)->info().transports;
  };
  using Names = std::vector<std::string>;
  const BlockGraph& graph = model->blocks();
  EXPECT_EQ(names(testing::SinglePlan(graph), testing::TestRig(1)), Names{});
  EXPECT_EQ(names(testing::LayerSplitPlan(graph, 2, 1), testing::TestRig(2)), Names{"d0-d1 local"});
  EXPECT_EQ(names(testing::LayerSplitPlan(graph, 2, 1), testing::EmulatedRig(2)),
            Names{"d0-d1 p2p (by local)"});
  EXPECT_EQ(names(testing::OffloadPlan(graph), testing::EmulatedRig(1)),
            Names{"host-d0 copy (by local)"});
}

TEST(EngineTest, HoldsTheMemoryThatThePlanSays) {
  const auto model = TinyModel();
  const BlockGraph& graph = model->blocks();
  for (const Plan& plan : {testing::SinglePlan(graph), testing::ReplicasPlan(graph, 2),
                           testing::LayerSplitPlan(graph, 2, 2),
                           testing::TensorSplitPlan(graph, {2, 1}), testing::OffloadPlan(graph)}) {
    auto engine = Engine::Create(TinyOptions(model, plan));
    auto& impl = dynamic_cast<EngineImpl&>(*engine);
    const MemoryTable& table = engine->info().planned.verified.memory;
    for (uint32_t d = 0; d < plan.n_devices; ++d) {
      const MemoryLedger& held = impl.device(d).ledger();
      const MemoryRow& row = table.rows[d];
      const std::string what = plan.plugin + " d" + std::to_string(d);
      EXPECT_EQ(held.used(MemoryUse::kKv), row.kv) << what;
      EXPECT_EQ(held.used(MemoryUse::kActivations), row.activations) << what;
      EXPECT_EQ(held.used(MemoryUse::kWorkspace), WorkspaceBytes(graph, 32)) << what;
      // Packing rounds matrices up to whole panels of rows, which the table counts as workspace.
      const Bytes padding = row.workspace - held.used(MemoryUse::kWorkspace);
      EXPECT_GE(held.used(MemoryUse::kWeights), row.weights) << what;
      EXPECT_LE(held.used(MemoryUse::kWeights), row.weights + padding) << what;
    }
  }
}

TEST(EngineTest, DecodeAllocatesNothing) {
  const auto model = TinyModel();
  const BlockGraph& graph = model->blocks();
  for (const Plan& plan : {testing::SinglePlan(graph), testing::TensorSplitPlan(graph, {2, 1}),
                           testing::OffloadPlan(graph), testing::LayerSplitPlan(graph, 2, 2)}) {
    auto engine = Engine::Create(TinyOptions(model, plan));
    auto& impl = dynamic_cast<EngineImpl&>(*engine);
    for (uint32_t d = 0; d < plan.n_devices; ++d) impl.device(d).ledger().Freeze(true);
    std::vector<std::shared_ptr<Recorder>> all;
    for (int32_t i = 0; i < 7; ++i) {
      all.push_back(std::make_shared<Recorder>());
      engine->Submit(MakeRequest(Prompt(static_cast<size_t>(1 + 20 * i), i), 7, i == 4),
                     all.back());
    }
    RunAll(*engine);
    for (const auto& recorder : all) {
      EXPECT_EQ(recorder->reason, FinishReason::kLength) << plan.plugin << ": " << recorder->error;
    }
  }
}

TEST(EngineTest, DecodeWaitsOneChunkAtMost) {
  auto engine = Engine::Create(Single());
  testing::StepLog log;
  engine->AddObserver(&log);
  auto talker = std::make_shared<Recorder>();
  engine->Submit(MakeRequest(Prompt(4), 12), talker);
  engine->Step();
  for (int32_t i = 0; i < 3; ++i) {
    engine->Submit(MakeRequest(Prompt(100, i), 2), std::make_shared<Recorder>());
  }
  RunAll(*engine);
  bool decoding = false;
  ProgramKind last = ProgramKind::kDecode;
  for (const StepReport& step : log.steps) {
    if (step.phase == ProgramKind::kPrefill) {
      EXPECT_LE(step.shape.rows(), 32u);
      const bool talking = decoding && step.start < talker->stats.done;
      EXPECT_FALSE(talking && last == ProgramKind::kPrefill) << "two chunks in a row";
    }
    decoding = true;
    last = step.phase;
  }
}

TEST(EngineTest, StatsAreInOrder) {
  const auto got = testing::RunOne(Single(), MakeRequest(Prompt(70), 5));
  const RequestStats& s = got->stats;
  EXPECT_LE(s.scheduled, s.submitted);
  EXPECT_LE(s.submitted, s.admitted);
  EXPECT_LE(s.admitted, s.prefill_start);
  EXPECT_LT(s.prefill_start, s.first_token);
  EXPECT_LE(s.first_token, s.done);
  EXPECT_EQ(s.prompt_tokens, 70u);
  EXPECT_EQ(s.generated_tokens, 5u);
  EXPECT_EQ(s.prefill.steps, 3u);
  EXPECT_EQ(s.decode.steps, 4u);
}

TEST(EngineThreadTest, ServesManyThreadsAndDrains) {
  auto engine = Engine::Create(Single());
  const auto want = testing::RunOne(Single(), MakeRequest(Prompt(9), 6));
  std::vector<std::shared_ptr<Recorder>> all(12);
  {
    EngineThread thread(*engine);
    std::vector<std::thread> clients;
    for (size_t c = 0; c < 3; ++c) {
      clients.emplace_back([&, c] {
        for (size_t i = 0; i < 4; ++i) {
          all[4 * c + i] = std::make_shared<Recorder>();
          thread.Submit(MakeRequest(Prompt(9), 6), all[4 * c + i]);
        }
      });
    }
    for (std::thread& client : clients) client.join();
    EXPECT_TRUE(thread.Drain(NanosFromSeconds(60)));
    for (const auto& recorder : all) {
      EXPECT_TRUE(recorder->done);
      EXPECT_EQ(recorder->ids, want->ids);
    }
  }
  ExpectNothingHeld(*engine);
}

TEST(EngineThreadTest, StoppingCancelsWhatIsOpen) {
  EngineOptions options = Single();
  options.limits.context = 4 * 8192;
  auto engine = Engine::Create(options);
  auto endless = std::make_shared<Recorder>();
  {
    EngineThread thread(*engine);
    thread.Submit(MakeRequest(Prompt(4), 8000), endless);
    EXPECT_FALSE(thread.Drain(NanosFromSeconds(0.005)));
  }
  EXPECT_TRUE(endless->done);
  EXPECT_EQ(endless->reason, FinishReason::kCancelled);
}

}  // namespace
}  // namespace tandem
