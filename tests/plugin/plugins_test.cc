// The plugins that ship: every one on every small shape gives a plan the verifier accepts, plans
// are the golden text, and their traffic is the closed form of their README.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "engine/base/error.h"
#include "engine/plan/cost.h"
#include "engine/plan/text.h"
#include "engine/plugin/planner.h"
#include "tests/plugin/golden_cases.h"
#include "tests/plugin/test_problem.h"

namespace tandem {
namespace {

const char* const kShipped[] = {TANDEM_PLUGIN_NAMES};

Planner MakePlanner() {
  PlannerOptions options;
  options.helper = TANDEM_PLANNER;
  options.folders = {TANDEM_PLUGINS};
  return Planner(options);
}

PlannedRun MakePlan(const std::string& plugin, const TestProblem& test,
                    const std::vector<Knob>& knobs = {}) {
  return MakePlanner().MakePlan(plugin, test.problem, knobs);
}

TEST(PluginsTest, PlansAreTheGoldenText) {
  std::set<std::string> seen;
  for (const GoldenCase& c : GoldenCases()) {
    seen.insert(c.plugin);
    const TestProblem test(c.shape);
    EXPECT_EQ(c.header + FormatPlan(MakePlan(c.plugin, test, c.knobs).plan), c.text)
        << c.path << " differs; ninja regenerate_golden_plans writes it anew";
  }
  for (const char* plugin : kShipped) EXPECT_TRUE(seen.contains(plugin)) << plugin << ": no plan";
}

class EveryPluginTest : public testing::TestWithParam<const char*> {};

TEST_P(EveryPluginTest, IsAcceptedOnEverySmallShape) {
  for (uint32_t kv_heads : {1, 2, 3, 8}) {
    for (uint32_t devices : {1, 2, 3, 4}) {
      const bool tied = (kv_heads + devices) % 2 == 0;
      const TestProblem test({.kv_heads = kv_heads, .devices = devices, .tied = tied});
      EXPECT_NO_THROW({
        const PlannedRun run = MakePlan(GetParam(), test);
        EXPECT_THAT(run.verified.warnings, testing::IsEmpty());
      }) << kv_heads
         << " KV heads, " << devices << " devices";
    }
  }
}

TEST_P(EveryPluginTest, IsAcceptedWithUnevenShares) {
  for (const std::vector<double>& shares : {std::vector<double>{2, 1}, {1, 0}, {0, 1}, {0.1, 99}}) {
    const TestProblem test({.tensor_split = shares});
    EXPECT_NO_THROW(MakePlan(GetParam(), test)) << shares[0] << "," << shares[1];
  }
}

TEST_P(EveryPluginTest, PlansTheSameTwice) {
  const TestProblem test({.layers = 3});
  const PlannedRun first = MakePlan(GetParam(), test);
  const PlannedRun second = MakePlan(GetParam(), test);
  EXPECT_EQ(first.plan_hash, second.plan_hash);
  EXPECT_EQ(FormatPlan(first.plan, PlanText::kWithCalls),
            FormatPlan(second.plan, PlanText::kWithCalls));
}

TEST_P(EveryPluginTest, IsSingleOnOneDevice) {
  const TestProblem test({.devices = 1});
  EXPECT_EQ(MakePlan(GetParam(), test).plan_hash, MakePlan("single", test).plan_hash);
}

INSTANTIATE_TEST_SUITE_P(Shipped, EveryPluginTest, testing::ValuesIn(kShipped),
                         [](const auto& info) { return std::string(info.param); });

TEST(PluginsTest, EveryGridPointPlans) {
  const TestProblem test({.devices = 3});
  for (const PluginInfo& info : MakePlanner().List()) {
    for (const KnobInfo& knob : info.knobs) {
      for (const std::string& value : knob.grid) {
        EXPECT_NO_THROW(MakePlan(info.name, test, {{knob.name, value}}))
            << info.name << " " << knob.name << "=" << value;
      }
    }
  }
}

// The units of a block placed on each device.
std::vector<uint32_t> UnitsPlaced(const Plan& plan, uint32_t block) {
  std::vector<uint32_t> units(plan.n_devices, 0);
  for (const Place& place : plan.places) {
    if (place.block.value == block)
      units[static_cast<size_t>(place.device.value)] += place.units.size();
  }
  return units;
}

TEST(PluginsTest, TensorSplitSharesUnitsOut) {
  const TestProblem even;
  EXPECT_THAT(UnitsPlaced(MakePlan("tensor_split", even).plan, 1), testing::ElementsAre(2, 1));
  const TestProblem uneven({.kv_heads = 8, .tensor_split = {3, 1}});
  const Plan plan = MakePlan("tensor_split", uneven).plan;
  EXPECT_THAT(UnitsPlaced(plan, 1), testing::ElementsAre(6, 2));
  EXPECT_THAT(UnitsPlaced(plan, 2), testing::ElementsAre(4, 1));
}

TEST(PluginsTest, LayerSplitHonoursShares) {
  const TestProblem test({.layers = 12, .tensor_split = {2, 1}});
  const Plan plan = MakePlan("layer_split", test).plan;
  uint32_t on_first = 0;
  for (uint32_t layer = 0; layer < 12; ++layer) on_first += UnitsPlaced(plan, 1 + 2 * layer)[0] > 0;
  EXPECT_EQ(on_first, 8u);
}

// ---- Bytes: what each README promises.

using Routes = std::map<std::pair<int, int>, uint64_t>;  // (src, dst) -> bytes; host is -1

Routes TrafficOfStep(const PlannedRun& run, const TestProblem& test, ProgramKind kind,
                     uint32_t tokens) {
  Routes routes;
  for (size_t p = 0; p < run.plan.programs.size(); ++p) {
    const Program& program = run.plan.programs[p];
    if (program.kind != kind || program.lane != 0) continue;
    const StepShape shape = kind == ProgramKind::kPrefill ? PrefillShape(program, tokens)
                                                          : DecodeShape(program, 1, tokens);
    for (const TrafficRow& row :
         TrafficOf(test.graph, run.plan, program, run.verified.programs[p], shape, test.rig)) {
      routes[{row.src.value, row.dst.value}] += row.bytes.value;
    }
  }
  return routes;
}

constexpr uint64_t kIds = 4;  // one sampled id to the host

TEST(PluginsTest, SingleAndReplicasMoveIdsAlone) {
  const TestProblem test;
  for (const char* plugin : {"single", "replicas"}) {
    const PlannedRun run = MakePlan(plugin, test);
    EXPECT_EQ(TrafficOfStep(run, test, ProgramKind::kPrefill, 48), (Routes{{{0, -1}, kIds}}));
  }
}

TEST(PluginsTest, LayerSplitMovesOneActivationACut) {
  const TestProblem test({.layers = 6, .devices = 3});
  const uint64_t row = 4 * 32;
  const PlannedRun run = MakePlan("layer_split", test, {{"microbatches", "4"}});
  EXPECT_EQ(TrafficOfStep(run, test, ProgramKind::kPrefill, 47),
            (Routes{{{0, 1}, 47 * row}, {{1, 2}, 47 * row}, {{2, -1}, kIds}}));
  EXPECT_EQ(TrafficOfStep(run, test, ProgramKind::kDecode, 100),
            (Routes{{{0, 1}, row}, {{1, 2}, row}, {{2, -1}, kIds}}));
}

TEST(PluginsTest, TensorSplitMovesTwiceTheLayersAndOne) {
  const TestProblem test({.layers = 2});
  const uint64_t s = 48 * 4 * 32;
  const uint64_t reduces = 2 * 2 + 1;
  // Vocabulary 320 in units of 64: 3 units on device 0, 2 on device 1.
  const PlannedRun run = MakePlan("tensor_split", test);
  EXPECT_EQ(
      TrafficOfStep(run, test, ProgramKind::kPrefill, 48),
      (Routes{{{0, 1}, reduces * s + 4 * 192}, {{1, 0}, reduces * s + 4 * 128}, {{0, -1}, kIds}}));
}

TEST(PluginsTest, TensorSplitOverThreeMovesShards) {
  const TestProblem test({.layers = 2, .devices = 3});
  const PlannedRun run = MakePlan("tensor_split", test);
  const uint64_t n = 48 * 32;
  const auto shard = [&](uint64_t i) { return n * (i + 1) / 3 - n * i / 3; };
  const uint64_t vocabulary[] = {128, 64, 128};  // units 2, 1, 2 of 64 rows
  Routes want{{{0, -1}, kIds}};
  for (int src = 0; src < 3; ++src) {
    for (int dst = 0; dst < 3; ++dst) {
      if (src == dst) continue;
      want[{src, dst}] = 4 * (5 * (shard(dst) + shard(src)) + vocabulary[src]);
    }
  }
  EXPECT_EQ(TrafficOfStep(run, test, ProgramKind::kPrefill, 48), want);
}

TEST(PluginsTest, OffloadMovesTheWeightsThatStayInTheHost) {
  const TestProblem test({.layers = 3});
  const PlannedRun run = MakePlan("offload", test, {{"resident_layers", "1"}});
  uint64_t weights = 0;
  for (uint32_t b = 3; b < 7; ++b) {
    weights += test.graph.blocks[b].UnitBytes(test.graph.blocks[b].AllUnits()).value;
  }
  const Routes want{{{-1, 0}, weights}, {{0, -1}, kIds}};
  EXPECT_EQ(TrafficOfStep(run, test, ProgramKind::kPrefill, 48), want);
  EXPECT_EQ(TrafficOfStep(run, test, ProgramKind::kDecode, 48), want);
}

bool Fetches(const Plan& plan, ProgramKind kind) {
  const std::vector<Op>& ops = plan.program(kind, 0).ops;
  return std::any_of(ops.begin(), ops.end(),
                     [](const Op& op) { return op.kind == OpKind::kFetch; });
}

// Three layers of 98 KB stay outside. Streaming costs their bytes over the link whatever the step;
// the processor costs them over its memory, or their products at its FLOP rate.
TEST(PluginsTest, OffloadChoosesBetweenStreamingAndTheProcessorByPrice) {
  struct Choice {
    int64_t ns_per_mib;  // of the host's link
    double flops;        // of the processor
    bool prefill_fetches, decode_fetches;
  };
  const Choice choices[] = {{1000, 1e12, true, true},     // 1 TB/s: whatever it can do
                            {100000, 1e11, true, false},  // 10 GB/s: decode there, prefill here
                            {100000000, 1e11, false, false}};
  for (const Choice& choice : choices) {
    TestProblem test({.layers = 4, .cpu = true});
    test.rig.host_link.send.points = {{Bytes{0}, Nanos{0}},
                                      {Bytes{1u << 20}, Nanos{choice.ns_per_mib}}};
    // Launches would weigh more than such small layers.
    for (DeviceSpec& device : test.rig.devices) device.launch_gap = Nanos{0};
    test.rig.devices.back().flops = choice.flops;
    const std::vector<Knob> one{{"resident_layers", "1"}};
    const Plan plan = MakePlan("offload", test, one).plan;
    EXPECT_EQ(Fetches(plan, ProgramKind::kPrefill), choice.prefill_fetches) << choice.ns_per_mib;
    EXPECT_EQ(Fetches(plan, ProgramKind::kDecode), choice.decode_fetches) << choice.ns_per_mib;
    // Whoever knows better says so.
    for (const char* beyond : {"stream", "cpu", "prefill_streams"}) {
      const PlannedRun asked =
          MakePlan("offload", test, {{"resident_layers", "1"}, {"beyond", beyond}});
      EXPECT_EQ(Fetches(asked.plan, ProgramKind::kDecode), std::string(beyond) == "stream");
      EXPECT_EQ(Fetches(asked.plan, ProgramKind::kPrefill), std::string(beyond) != "cpu");
      EXPECT_THAT(asked.verified.warnings, testing::IsEmpty()) << beyond;
    }
  }
}

TEST(PluginsTest, OffloadKeepsAsManyLayersAsFit) {
  const TestProblem roomy({.layers = 8, .devices = 1});
  const uint64_t all = MakePlan("single", roomy).verified.memory.rows[0].total().value;
  const uint64_t layer =
      roomy.graph.blocks[1].UnitBytes({0, 3}).value + roomy.graph.blocks[2].UnitBytes({0, 5}).value;
  const auto resident = [&](uint64_t memory) {
    const TestProblem test({.layers = 8, .devices = 1, .memory = Bytes{memory}});
    const PlannedRun run = MakePlan("offload", test);
    EXPECT_TRUE(run.verified.memory.rows[0].fits());
    uint32_t layers = 0;
    for (const Place& place : run.plan.places) {
      layers += !place.device.IsHost() && place.block.value % 2 == 1 && place.block.value < 17;
    }
    return layers;
  };
  EXPECT_EQ(resident(all), 8u);
  // The two slots take a layer's room themselves.
  EXPECT_EQ(resident(all - 1), 6u);
  EXPECT_EQ(resident(all - layer), 6u);
  EXPECT_EQ(resident(all - 3 * layer), 4u);
  const TestProblem small({.layers = 8, .devices = 1, .memory = Bytes{all / 20}});
  EXPECT_THROW(MakePlan("offload", small), Error);
}

}  // namespace
}  // namespace tandem
