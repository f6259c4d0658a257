// What the ledger counts as bytes move equals the closed forms of engine/plan/cost.h, step by step,
// for every split, wire and path; and what each device's step is made of adds up to the step.
#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

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

std::vector<Plan> AllPlans(const BlockGraph& graph) {
  return {testing::SinglePlan(graph),
          testing::ReplicasPlan(graph, 2),
          testing::LayerSplitPlan(graph, 2, 1),
          testing::LayerSplitPlan(graph, 3, 2),
          testing::TensorSplitPlan(graph, {2, 1}),
          testing::TensorSplitPlan(graph, {1, 1, 1}),
          testing::TensorSplitPlan(graph, {1, 1, 1}, Algorithm::kTwoShot),
          testing::OffloadPlan(graph),
          testing::SequenceParallelPlan(graph, {2, 1}),
          testing::WeightGatherPlan(graph, 2),
          testing::DisaggregatePlan(graph),
          testing::ReplicatedAttentionPlan(graph, 2, 2)};
}

// Five prompts of uneven lengths, one of them scored, one cancelled by its length at once.
void RunWorkload(Engine& engine) {
  for (int32_t i = 0; i < 5; ++i) {
    auto recorder = std::make_shared<Recorder>();
    engine.Submit(MakeRequest(Prompt(static_cast<size_t>(3 + 17 * i), i),
                              static_cast<uint32_t>(1 + 4 * i), i == 2),
                  recorder);
  }
  RunAll(engine);
}

using Sum = std::tuple<DeviceId, DeviceId, PathKind, uint64_t, uint32_t>;
std::vector<Sum> Sorted(const std::vector<TrafficRow>& rows) {
  std::vector<Sum> sums;
  for (const TrafficRow& row : rows) {
    if (row.bytes.value == 0) continue;
    sums.emplace_back(row.src, row.dst, row.path, row.bytes.value, row.rows);
  }
  std::sort(sums.begin(), sums.end());
  return sums;
}

std::string Text(const std::vector<Sum>& sums) {
  std::string text;
  for (const auto& [src, dst, path, bytes, rows] : sums) {
    text += "  " + std::to_string(src.value) + "->" + std::to_string(dst.value) + " " +
            ToString(path) + " " + std::to_string(bytes) + " bytes, " + std::to_string(rows) +
            " rows\n";
  }
  return text;
}

void ExpectTrafficMatches(const Engine& engine, const StepLog& log, const std::string& what) {
  const PlannedRun& planned = engine.info().planned;
  ASSERT_FALSE(log.steps.empty());
  for (const StepReport& step : log.steps) {
    for (size_t p = 0; p < planned.plan.programs.size(); ++p) {
      const Program& program = planned.plan.programs[p];
      if (program.kind != step.phase || program.lane != step.lane) continue;
      const auto want =
          Sorted(TrafficOf(engine.model().blocks(), planned.plan, program,
                           planned.verified.programs[p], step.shape, engine.options().rig));
      const auto got = Sorted(step.traffic);
      ASSERT_EQ(got, want) << what << ", step " << step.index << " (" << ToString(step.phase)
                           << ", " << step.shape.rows() << " rows): counted\n"
                           << Text(got) << "the formula says\n"
                           << Text(want);
    }
  }
}

TEST(TrafficTest, CountedBytesEqualTheFormulaForEveryPlanAndWire) {
  const auto model = TinyModel(DType::kQ4_1);
  for (const Plan& base : AllPlans(model->blocks())) {
    for (WireType wire : {WireType::kF32, WireType::kBf16, WireType::kQ8}) {
      Plan plan = base;
      plan.wire = wire;
      StepLog log;
      auto engine = Engine::Create(TinyOptions(model, plan));
      engine->AddObserver(&log);
      RunWorkload(*engine);
      ExpectTrafficMatches(*engine, log, plan.plugin + " " + ToString(wire));
    }
  }
}

// Biases are fetched and gathered with the rows they belong to; the norms of heads stay where they
// are.
TEST(TrafficTest, CountedBytesEqualTheFormulaWithBiasesAndHeadNorms) {
  for (const char* arch : {"qwen2", "qwen3"}) {
    const auto model = MakeSyntheticModel(ParseSyntheticSpec(
        std::string("h=96,l=2,heads=6,kv=3,hd=32,ffn=160,vocab=200,ctx=512,type=q4_1,arch=") +
        arch));
    for (const Plan& plan : AllPlans(model->blocks())) {
      StepLog log;
      auto engine = Engine::Create(TinyOptions(model, plan));
      engine->AddObserver(&log);
      RunWorkload(*engine);
      ExpectTrafficMatches(*engine, log, plan.plugin + " " + arch);
    }
  }
}

TEST(TrafficTest, CountedBytesEqualTheFormulaOnEveryPath) {
  const auto model = TinyModel(DType::kF32);
  for (const Plan& base : AllPlans(model->blocks())) {
    for (PathKind path : {PathKind::kAuto, PathKind::kP2p, PathKind::kHostStaged}) {
      Plan plan = base;
      for (Program& program : plan.programs) {
        for (Op& op : program.ops) {
          const bool moves = op.kind != OpKind::kRun && op.kind != OpKind::kNorm &&
                             op.kind != OpKind::kAdd && op.kind != OpKind::kSample;
          if (moves) op.path = path;
        }
      }
      EngineOptions options = TinyOptions(model, plan);
      options.rig = EmulatedRig(plan.n_devices);
      options.clock = ClockKind::kVirtual;
      options.op_times = OpTimes::kModelled;
      StepLog log;
      auto engine = Engine::Create(options);
      engine->AddObserver(&log);
      RunWorkload(*engine);
      ExpectTrafficMatches(*engine, log, plan.plugin + " " + ToString(path));
    }
  }
}

TEST(TrafficTest, RequestSharesAddUpToTheWhole) {
  const auto model = TinyModel(DType::kQ4_1);
  StepLog log;
  auto engine =
      Engine::Create(TinyOptions(model, testing::TensorSplitPlan(model->blocks(), {2, 1})));
  engine->AddObserver(&log);
  std::vector<std::shared_ptr<Recorder>> all;
  for (int32_t i = 0; i < 4; ++i) {
    all.push_back(std::make_shared<Recorder>());
    engine->Submit(MakeRequest(Prompt(static_cast<size_t>(7 + 13 * i), i), 9), all.back());
  }
  RunAll(*engine);
  uint64_t moved = 0;
  for (const StepReport& step : log.steps) {
    for (const TrafficRow& row : step.traffic) {
      if (!row.dst.IsHost()) moved += row.bytes.value;
    }
  }
  uint64_t shared = 0;
  for (const auto& recorder : all) {
    shared += recorder->stats.prefill.link_bytes.value + recorder->stats.decode.link_bytes.value;
  }
  EXPECT_GT(moved, 0u);
  EXPECT_EQ(shared, moved);
}

TEST(AttributionTest, PartsAddUpToTheStep) {
  const auto model = TinyModel(DType::kQ4_1);
  for (const Plan& plan : AllPlans(model->blocks())) {
    for (bool emulated : {false, true}) {
      EngineOptions options = TinyOptions(model, plan);
      if (emulated) {
        options.rig = EmulatedRig(plan.n_devices);
        options.clock = ClockKind::kVirtual;
        // Probing this machine takes a while: scaled times for one plan, modelled ones for the
        // rest.
        const bool scaled = plan.plugin == "tensor_split" && plan.n_devices == 2;
        options.op_times = scaled ? OpTimes::kMeasured : OpTimes::kModelled;
      } else {
        options.rig.is_this_machine = true;
      }
      StepLog log;
      auto engine = Engine::Create(options);
      engine->AddObserver(&log);
      RunWorkload(*engine);
      EXPECT_EQ(engine->info().fidelity, emulated ? Fidelity::kEmulated : Fidelity::kMeasured);
      for (const StepReport& step : log.steps) {
        EXPECT_EQ(step.end - step.start, step.timeline.length) << plan.plugin;
        ASSERT_EQ(step.timeline.devices.size(), plan.n_devices);
        for (const DeviceAttribution& device : step.timeline.devices) {
          EXPECT_EQ(device.total(), step.timeline.length)
              << plan.plugin << " d" << device.device.value;
          for (Nanos part :
               {device.compute, device.launch, device.exposed_comm, device.wait, device.idle}) {
            EXPECT_GE(part.value, 0) << plan.plugin << " d" << device.device.value;
          }
        }
        // What ran is what was timed: nothing is lost between the ops and the step.
        Nanos ops;
        for (Nanos time : step.op_times_raw) ops += time;
        EXPECT_LE(ops, step.wall);
      }
    }
  }
}

}  // namespace
}  // namespace tandem
