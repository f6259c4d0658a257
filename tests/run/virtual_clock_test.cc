// Rig time: modelled times repeat to the nanosecond, measured ones change nothing but op timings,
// lanes step independently, and an open-loop workload enters in its own time.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/plan/fused_ops.h"
#include "tests/run/emulated_rig.h"
#include "tests/run/engine_fixture.h"

namespace tandem {
namespace {

using testing::EmulatedRig;
using testing::MakeRequest;
using testing::Prompt;
using testing::Recorder;
using testing::RunAll;
using testing::StepLog;
using testing::TinyModel;
using testing::TinyOptions;

EngineOptions Emulated(std::shared_ptr<const Model> model, Plan plan, OpTimes op_times) {
  EngineOptions options = TinyOptions(std::move(model), std::move(plan));
  options.rig = EmulatedRig(options.plan->n_devices);
  options.clock = ClockKind::kVirtual;
  options.op_times = op_times;
  return options;
}

// Everything a run shows, as text.
struct Outcome {
  std::string tokens, bytes, times, raw;
};

void Append(const StepReport& step, const std::vector<HopRow>& hops, Outcome& out) {
  const auto add = [](std::string& text, auto... values) {
    ((text += std::to_string(values) + " "), ...);
  };
  add(out.bytes, step.index, static_cast<int>(step.phase), step.lane, step.shape.rows());
  for (const TrafficRow& row : step.traffic) add(out.bytes, row.bytes.value);
  add(out.times, step.start.value, step.end.value, step.timeline.link_busy.value);
  for (const OpTiming& op : step.timeline.ops) add(out.times, op.start.value, op.end.value);
  for (const HopRow& hop : hops) {
    add(out.bytes, hop.op, hop.src.value, hop.dst.value, hop.bytes.value);
    add(out.times, hop.start.value, hop.end.value, hop.exposed.value);
  }
}

// Six requests arrive `gap` apart; the engine is driven as a load generator would.
Outcome OpenLoop(EngineOptions options, Nanos gap, std::vector<RequestStats>* stats = nullptr) {
  auto engine = Engine::Create(std::move(options));
  StepLog log;
  engine->AddObserver(&log);
  std::vector<std::shared_ptr<Recorder>> all;
  int next = 0;
  while (next < 6 || engine->HasWork()) {
    const Nanos arrival{gap.value * next};
    if (next < 6 && (!engine->HasWork() || arrival <= engine->NextStepTime())) {
      engine->AdvanceTo(arrival);
      Request request = MakeRequest(Prompt(static_cast<size_t>(9 + 8 * next), next),
                                    static_cast<uint32_t>(3 + next));
      request.scheduled = arrival;
      all.push_back(std::make_shared<Recorder>());
      engine->Submit(request, all.back());
      ++next;
      continue;
    }
    engine->Step();
  }
  Outcome out;
  for (const auto& recorder : all) {
    EXPECT_EQ(recorder->reason, FinishReason::kLength) << recorder->error;
    for (int32_t id : recorder->ids) out.tokens += std::to_string(id) + " ";
    for (Nanos time : recorder->stats.token_times) out.times += std::to_string(time.value) + " ";
    if (stats != nullptr) stats->push_back(recorder->stats);
  }
  for (size_t i = 0; i < log.steps.size(); ++i) Append(log.steps[i], log.hops[i], out);
  return out;
}

std::vector<Plan> Plans(const BlockGraph& graph) {
  return {testing::SinglePlan(graph), testing::ReplicasPlan(graph, 2),
          testing::LayerSplitPlan(graph, 2, 2), testing::TensorSplitPlan(graph, {2, 1}),
          testing::OffloadPlan(graph)};
}

TEST(VirtualClockTest, ModelledTimesRepeatToTheByte) {
  const auto model = TinyModel();
  for (const Plan& plan : Plans(model->blocks())) {
    const Outcome a = OpenLoop(Emulated(model, plan, OpTimes::kModelled), Nanos{60000});
    const Outcome b = OpenLoop(Emulated(model, plan, OpTimes::kModelled), Nanos{60000});
    EXPECT_EQ(a.tokens, b.tokens) << plan.plugin;
    EXPECT_EQ(a.bytes, b.bytes) << plan.plugin;
    EXPECT_EQ(a.times, b.times) << plan.plugin;
  }
}

TEST(VirtualClockTest, MeasuredTimesChangeTimesAlone) {
  // Everything arrives at once: which requests share a step does not depend on how long steps take.
  const auto model = TinyModel();
  for (const Plan& plan : Plans(model->blocks())) {
    if (plan.n_lanes > 1) continue;  // lanes race each other for the queue
    const Outcome a = OpenLoop(Emulated(model, plan, OpTimes::kMeasured), Nanos{0});
    const Outcome b = OpenLoop(Emulated(model, plan, OpTimes::kModelled), Nanos{0});
    EXPECT_EQ(a.tokens, b.tokens) << plan.plugin;
    EXPECT_EQ(a.bytes, b.bytes) << plan.plugin;
    EXPECT_NE(a.times, b.times) << plan.plugin;
  }
}

TEST(VirtualClockTest, ScaledTimesStayBehindTheRigsRoof) {
  const auto model = TinyModel();
  EngineOptions options =
      Emulated(model, testing::TensorSplitPlan(model->blocks(), {2, 1}), OpTimes::kMeasured);
  auto engine = Engine::Create(options);
  StepLog log;
  engine->AddObserver(&log);
  engine->Submit(MakeRequest(Prompt(50), 8), std::make_shared<Recorder>());
  RunAll(*engine);
  EXPECT_GT(engine->info().op_time_factor, 0);
  EXPECT_LT(engine->info().op_time_factor, 1) << "the made-up cards are faster than any CPU";
  const PlannedRun& planned = engine->info().planned;
  for (const StepReport& step : log.steps) {
    const Program& program = planned.plan.program(step.phase, step.lane);
    const auto index = static_cast<size_t>(&program - planned.plan.programs.data());
    const FusedOps fused(model->blocks(), planned.plan, program, planned.verified.programs[index]);
    const auto shares = TrafficShares(program, fused.In(step.shape, options.rig));
    for (size_t i = 0; i < program.ops.size(); ++i) {
      const Op& op = program.ops[i];
      if (step.op_times_raw[i].value == 0) continue;
      OpCost cost = CostOf(model->blocks(), op, ShapeFor(op, step.shape));
      cost.memory_bytes *= shares[i];  // what runs as one is one pass
      const double roof = RooflineSeconds(cost, options.rig.devices[0]);
      EXPECT_GE(step.op_times[i].Seconds(), roof - 1e-9) << "op " << i;
    }
  }
}

TEST(VirtualClockTest, NothingHappensBeforeItIsDue) {
  const auto model = TinyModel();
  for (const Plan& plan : Plans(model->blocks())) {
    std::vector<RequestStats> stats;
    OpenLoop(Emulated(model, plan, OpTimes::kModelled), Nanos{60000}, &stats);
    for (size_t i = 0; i < stats.size(); ++i) {
      const RequestStats& s = stats[i];
      EXPECT_EQ(s.scheduled, Nanos{60000 * static_cast<int64_t>(i)});
      EXPECT_GE(s.submitted, s.scheduled);
      EXPECT_GE(s.admitted, s.submitted) << plan.plugin << " request " << i;
      EXPECT_GE(s.prefill_start, s.admitted) << plan.plugin << " request " << i;
      EXPECT_GT(s.first_token, s.prefill_start);
      EXPECT_TRUE(std::is_sorted(s.token_times.begin(), s.token_times.end()));
      EXPECT_EQ(s.token_times.size(), 3u + i);
      EXPECT_EQ(s.done, s.token_times.back());
      EXPECT_EQ(s.fidelity, Fidelity::kEmulated);
    }
  }
}

TEST(VirtualClockTest, LanesRunSideBySide) {
  const auto model = TinyModel();
  const auto span = [&](Plan plan) {
    auto engine = Engine::Create(Emulated(model, std::move(plan), OpTimes::kModelled));
    std::vector<std::shared_ptr<Recorder>> all;
    for (int32_t i = 0; i < 2; ++i) {
      all.push_back(std::make_shared<Recorder>());
      engine->Submit(MakeRequest(Prompt(20), 10), all.back());
    }
    RunAll(*engine);
    EXPECT_EQ(all[0]->ids, all[1]->ids);
    return std::make_pair(all[0]->stats, all[1]->stats);
  };
  const auto [a, b] = span(testing::ReplicasPlan(model->blocks(), 2));
  EXPECT_EQ(a.lane, 0u);
  EXPECT_EQ(b.lane, 1u);
  EXPECT_EQ(a.done, b.done) << "the same request takes the same time on its own card";
  EXPECT_EQ(a.prefill_start, b.prefill_start);
}

TEST(VirtualClockTest, AnArrivalDuringOneLanesStepStartsOnTheOther) {
  const auto model = TinyModel();
  auto engine = Engine::Create(
      Emulated(model, testing::ReplicasPlan(model->blocks(), 2), OpTimes::kModelled));
  auto first = std::make_shared<Recorder>();
  auto second = std::make_shared<Recorder>();
  engine->Submit(MakeRequest(Prompt(32), 1), first);
  engine->Step();  // starts lane 0
  EXPECT_FALSE(first->done);
  const Nanos end = engine->NextStepTime();
  ASSERT_GT(end.value, 1000);
  engine->AdvanceTo(Nanos{1000});
  engine->Submit(MakeRequest(Prompt(32), 1), second);
  RunAll(*engine);
  EXPECT_EQ(first->stats.done, end);
  EXPECT_EQ(second->stats.prefill_start, Nanos{1000});
  EXPECT_EQ(second->stats.done, end + Nanos{1000});
}

TEST(VirtualClockTest, ThisMachineInVirtualTimeIsEmulated) {
  const auto model = TinyModel();
  EngineOptions options = TinyOptions(model, testing::LayerSplitPlan(model->blocks(), 2, 2));
  options.rig.is_this_machine = true;
  options.clock = ClockKind::kVirtual;
  auto engine = Engine::Create(options);
  EXPECT_EQ(engine->info().fidelity, Fidelity::kEmulated);
  StepLog log;
  engine->AddObserver(&log);
  engine->Submit(MakeRequest(Prompt(20), 4), std::make_shared<Recorder>());
  RunAll(*engine);
  for (const StepReport& step : log.steps) EXPECT_EQ(step.op_times, step.op_times_raw);
}

}  // namespace
}  // namespace tandem
