// Names, wire sizes and the hash of plans.
#include "engine/plan/plan.h"

#include <gtest/gtest.h>

#include "tests/support/plan_builders.h"

namespace tandem {
namespace {

using testing::LayerSplitPlan;
using testing::SinglePlan;
using testing::TensorSplitPlan;
using testing::TinyGraph;

TEST(WireBytesTest, CountsAShortLastBlock) {
  EXPECT_EQ(WireBytes(WireType::kF32, 576).value, 2304u);
  EXPECT_EQ(WireBytes(WireType::kBf16, 576).value, 1152u);
  EXPECT_EQ(WireBytes(WireType::kQ8, 576).value, 34u * 18);
  EXPECT_EQ(WireBytes(WireType::kQ8, 33).value, 34u + 3);
  EXPECT_EQ(WireBytes(WireType::kQ8, 0).value, 0u);
}

TEST(WireTypeTest, NamesReadBack) {
  for (WireType wire : {WireType::kF32, WireType::kBf16, WireType::kQ8}) {
    EXPECT_EQ(WireTypeFromName(ToString(wire)), wire);
  }
  EXPECT_EQ(WireTypeFromName("int8"), std::nullopt);
}

TEST(DefaultQueueTest, SeparatesComputeFromMovement) {
  EXPECT_EQ(DefaultQueue(OpKind::kRun), QueueKind::kCompute);
  EXPECT_EQ(DefaultQueue(OpKind::kSample), QueueKind::kCompute);
  EXPECT_EQ(DefaultQueue(OpKind::kFetch), QueueKind::kCopyIn);
  EXPECT_EQ(DefaultQueue(OpKind::kKvMove), QueueKind::kCopyOut);
  EXPECT_EQ(DefaultQueue(OpKind::kAllReduce), QueueKind::kComm);
  EXPECT_EQ(DefaultQueue(OpKind::kTransfer), QueueKind::kComm);
}

TEST(PlanTest, FindsAProgramByKindAndLane) {
  BlockGraph graph = TinyGraph({});
  Plan plan = testing::ReplicasPlan(graph, 3);
  EXPECT_EQ(&plan.program(ProgramKind::kDecode, 2), &plan.programs[5]);
  EXPECT_DEATH(plan.program(ProgramKind::kDecode, 3), "lane 3");
}

TEST(PlanHashTest, IgnoresWhoWroteThePlan) {
  BlockGraph graph = TinyGraph({});
  Plan a = SinglePlan(graph), b = SinglePlan(graph);
  b.plugin = "someone_else";
  b.plugin_version = "9";
  b.knobs = {{"depth", "3"}};
  b.programs[0].ops[0].plugin_call = 17;
  EXPECT_EQ(PlanHash(a), PlanHash(b));
  EXPECT_EQ(PlanHash(a).size(), 64u);
}

TEST(PlanHashTest, ChangesWithEveryThingThePlanSays) {
  BlockGraph graph = TinyGraph({});
  const Plan plan = LayerSplitPlan(graph, 2, 2);
  auto changed = [&](auto edit) {
    Plan other = plan;
    edit(other);
    return PlanHash(other) != PlanHash(plan);
  };
  EXPECT_TRUE(changed([](Plan& p) { p.wire = WireType::kBf16; }));
  EXPECT_TRUE(changed([](Plan& p) { p.n_devices = 3; }));
  EXPECT_TRUE(changed([](Plan& p) { p.places[1].units.end -= 1; }));
  EXPECT_TRUE(changed([](Plan& p) { p.slots.push_back({DeviceId{0}, Bytes{1}}); }));
  EXPECT_TRUE(changed([](Plan& p) { p.programs[0].microbatches = 3; }));
  EXPECT_TRUE(changed([](Plan& p) { p.programs[0].ops[3].block.value += 1; }));
  EXPECT_TRUE(changed([](Plan& p) { p.programs[0].ops[3].path = PathKind::kP2p; }));
  EXPECT_TRUE(changed([](Plan& p) { p.programs[0].ops[3].queue = QueueKind::kComm; }));
  EXPECT_TRUE(changed([](Plan& p) { p.programs[0].ops[3].algorithm = Algorithm::kTwoShot; }));
}

}  // namespace
}  // namespace tandem
