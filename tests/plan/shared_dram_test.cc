// The bandwidth of the host's memory, shared by its processor and by what crosses to cards.
#include "engine/plan/shared_dram.h"

#include <gtest/gtest.h>

#include "engine/plan/pricer.h"
#include "tests/plan/plan_builder.h"

namespace tandem {
namespace {

using namespace testing_plans;  // NOLINT: the builder's names read as this file's own

std::vector<Nanos> Delays(const std::vector<DramUse>& uses) { return DramDelays(uses, 10, 3); }

TEST(DramDelaysTest, ThereAreNoneWhereThereIsEnough) {
  const std::vector<Nanos> none(3);
  EXPECT_EQ(Delays({}), none);
  EXPECT_EQ(Delays({{0, {Nanos{0}, Nanos{100}}, 6}, {1, {Nanos{0}, Nanos{100}}, 4}}), none);
  EXPECT_EQ(Delays({{0, {Nanos{0}, Nanos{50}}, 10}, {1, {Nanos{50}, Nanos{100}}, 10}}), none)
      << "one after the other";
  EXPECT_EQ(Delays({{0, {Nanos{0}, Nanos{50}}, 20}}), none) << "alone it takes what it takes";
}

TEST(DramDelaysTest, WhoWantsTooMuchTogetherIsDelayedAlike) {
  // 12 of 10 while both run: each advances at 10/12.
  EXPECT_EQ(Delays({{0, {Nanos{0}, Nanos{1200}}, 8}, {1, {Nanos{600}, Nanos{1800}}, 4}}),
            (std::vector<Nanos>{Nanos{100}, Nanos{100}, Nanos{0}}));
  // Half of 20 for a third one in between; parts of one op add up.
  EXPECT_EQ(Delays({{0, {Nanos{0}, Nanos{100}}, 10},
                    {0, {Nanos{200}, Nanos{300}}, 10},
                    {2, {Nanos{50}, Nanos{250}}, 10}}),
            (std::vector<Nanos>{Nanos{50}, Nanos{0}, Nanos{50}}));
}

class SharedDramTest : public testing::Test {
 protected:
  // The processor is device 0 and runs blocks 0 to 2, while weights cross to the card for long.
  SharedDramTest() : b(LayerSplit(graph, 3, 1)), rig(SmallRig(2)) {
    b.plan.slots = {Slot{DeviceId{1}, graph.blocks[2].UnitBytes(b.All(2))}};
    b.Fetch(2, b.All(2), kHost, 1, 0);
    fetch = static_cast<uint32_t>(b.program.ops.size()) - 1;
    rig.devices[0].on_host = true;
    rig.devices[0].memory_efficiency = 1;
  }
  // Half of what the processor's memory gives, for so long that all of its ops run meanwhile.
  void FetchAtHalf() {
    const uint64_t bytes = graph.blocks[2].UnitBytes(b.All(2)).value;
    rig.devices[0].memory_bytes_per_s = static_cast<double>(bytes) / 0.5e-3;
    rig.devices[0].launch_gap = Nanos{0};
    rig.host_link.send.points = {{Bytes{0}, Nanos{0}}, {Bytes{bytes}, Nanos{1'000'000}}};
    rig.devices[0].flops = 1e15;
  }
  Timeline Lay(const StepShape& shape, std::vector<Nanos>& times) {
    times = ModelledOpTimes(graph, b.program, shape, rig);
    return LaySchedule(graph, b.plan, b.program, b.info, shape, rig, times);
  }

  std::shared_ptr<const Model> model = SmallModel();
  const BlockGraph& graph = model->blocks();
  PlanBuilder b;
  Rig rig;
  uint32_t fetch = 0;
};

TEST_F(SharedDramTest, TheProcessorAndAFetchBothTakeLonger) {
  FetchAtHalf();
  const StepShape shape = DecodeShape(b.program, 1, 4);
  std::vector<Nanos> times;
  const Timeline t = Lay(shape, times);
  const Timeline alone = [&] {
    Rig apart = rig;
    apart.devices[0].on_host = false;  // a memory of its own
    return LaySchedule(graph, b.plan, b.program, b.info, shape, apart, times);
  }();
  double lost = 0;
  const double bandwidth = rig.devices[0].memory_bytes_per_s;
  for (size_t i = 0; i < times.size(); ++i) {
    const Op& op = b.program.ops[i];
    if (!IsCompute(op.kind)) continue;
    const double took = static_cast<double>((t.ops[i].release - t.ops[i].start).value);
    const auto own = static_cast<double>(times[i].value);
    if (op.devices[0].value == 1) {
      EXPECT_EQ(t.ops[i].release - t.ops[i].start - t.ops[i].launch, times[i]) << "a card's op";
      continue;
    }
    ASSERT_LT(t.ops[i].release, t.ops[fetch].end) << "all of them run beside the fetch";
    const double wanted = CostOf(graph, op, ShapeFor(op, shape)).memory_bytes / (own * 1e-9);
    const double factor = std::max(1.0, (wanted + bandwidth / 2) / bandwidth);
    EXPECT_NEAR(took, own * factor, 3 + 0.002 * own) << ToString(op.kind);
    lost += took - took / factor;
  }
  EXPECT_GT(lost, 1000) << "worth a look";
  const Nanos longer = t.ops[fetch].end - t.ops[fetch].wire - Nanos{1'000'000};
  EXPECT_NEAR(static_cast<double>(longer.value), lost, 3 + 0.01 * lost);
  EXPECT_EQ(alone.ops[fetch].end - alone.ops[fetch].wire, Nanos{1'000'000});
  EXPECT_GT(t.length, alone.length);
}

// The start of a step is beside the end of one like it.
TEST_F(SharedDramTest, AFetchThatBeganBeforeTheStepCountsAtItsEnd) {
  FetchAtHalf();
  const StepShape shape = DecodeShape(b.program, 1, 4);
  Timeline t;
  t.length = Nanos{1000};
  t.ops.resize(b.program.ops.size());
  t.ops[fetch].wire = Nanos{-300};
  t.ops[fetch].end = Nanos{200};
  const std::vector<Nanos> none(t.ops.size());
  const std::vector<DramUse> uses =
      DramUsesOf({graph, b.plan, b.program, b.info, shape, rig, none}, t, none);
  ASSERT_EQ(uses.size(), 2u);
  EXPECT_EQ(uses[0].when.begin, Nanos{700});
  EXPECT_EQ(uses[0].when.end, Nanos{1000});
  EXPECT_EQ(uses[1].when.begin, Nanos{0});
  EXPECT_EQ(uses[1].when.end, Nanos{200});
  const double bytes = static_cast<double>(graph.blocks[2].UnitBytes(b.All(2)).value);
  EXPECT_DOUBLE_EQ(uses[0].bytes_per_s, bytes / 500e-9);
  EXPECT_EQ(uses[0].op, fetch);
}

TEST_F(SharedDramTest, NothingChangesWhereTheMemoryIsFastEnough) {
  FetchAtHalf();
  rig.devices[0].memory_efficiency = 0.01;  // its products are slow
  const StepShape shape = DecodeShape(b.program, 1, 4);
  std::vector<Nanos> times;
  const Timeline t = Lay(shape, times);
  for (size_t i = 0; i < times.size(); ++i) {
    if (!IsCompute(b.program.ops[i].kind)) continue;
    EXPECT_EQ(t.ops[i].release - t.ops[i].start - t.ops[i].launch, times[i]) << i;
  }
  EXPECT_EQ(t.ops[fetch].end - t.ops[fetch].wire, Nanos{1'000'000});
}

}  // namespace
}  // namespace tandem
