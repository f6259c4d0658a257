// Modelled times, intervals and critical paths, on small plans and on catalogue rigs.
#include "engine/plan/pricer.h"

#include <gtest/gtest.h>

#include "tests/plan/plan_builder.h"

namespace tandem {
namespace {

using namespace testing_plans;  // NOLINT: the builder's names read as this file's own

class PricerTest : public testing::Test {
 protected:
  Price PriceOf(const PlanBuilder& b, const StepShape& shape, const Rig& rig) {
    return PriceStep(graph, b.plan, b.program, b.info, shape, rig);
  }

  std::shared_ptr<const Model> model = SmallModel();
  const BlockGraph& graph = model->blocks();
};

TEST_F(PricerTest, OpTimesAreTheRoofsAtTheirEfficiencies) {
  PlanBuilder b = TensorSplit(graph, {1}, Algorithm::kNone);
  Rig rig = SmallRig(1);
  rig.devices[0].memory_efficiency = 0.5;
  rig.devices[0].compute_efficiency = 0.25;
  StepShape shape = PrefillShape(b.program, 100);
  std::vector<Nanos> times = ModelledOpTimes(graph, b.program, shape, rig);
  for (size_t i = 0; i < times.size(); ++i) {
    const Op& op = b.program.ops[i];
    OpCost cost = CostOf(graph, op, ShapeFor(op, shape));
    const DeviceSpec& d = rig.devices[0];
    double products = std::max((cost.flops - cost.attention_flops) / (0.25 * d.flops),
                               (cost.memory_bytes - cost.kv_bytes) / (0.5 * d.memory_bytes_per_s));
    double attention = cost.kv_bytes / (0.75 * 0.5 * d.memory_bytes_per_s) +
                       cost.attention_flops / (0.75 * 0.25 * d.flops);
    EXPECT_EQ(times[i], NanosFromSeconds(products + attention)) << i;
  }
}

TEST_F(PricerTest, ShardsOfASequenceCostTheirShare) {
  PlanBuilder b(graph, 2);
  std::vector<ValueId> y;
  for (uint32_t d = 0; d < 2; ++d) {
    ValueId x = b.Run(0, b.All(0), d, 0, std::nullopt);
    y.push_back(b.Run(2, Shares(graph, 2, {1, 1})[d], d, 0, b.Norm(2, d, 0, x)));
  }
  ValueId whole = b.Add(2, 0, 0, 0, b.AllReduce(y, Algorithm::kOneShot)[0]);
  std::vector<ValueId> shards = b.ReduceScatter(y);
  ValueId part = b.Add(2, 0, 0, shards[0], shards[0]);
  StepShape shape = PrefillShape(b.program, 1000);
  std::vector<Nanos> times = ModelledOpTimes(graph, b.program, shape, SmallRig(2));
  EXPECT_NEAR(static_cast<double>(times[b.info.values[whole].def_op].value),
              2.0 * static_cast<double>(times[b.info.values[part].def_op].value), 2);
}

// An all-reduce that takes ADDs and NORMs along saves their launch, and what they would read and
// write again.
TEST_F(PricerTest, WhatRunsAsOneIsPricedAsOne) {
  PlanBuilder b = TensorSplit(graph, {1, 1}, Algorithm::kOneShot);
  const Rig rig = SmallRig(2);
  const StepShape shape = DecodeShape(b.program, 4, 10);
  const auto price = [&](bool fuse) {
    return PriceStep(graph, b.plan, b.program, b.info, shape, rig, {.fuse_collectives = fuse});
  };
  const auto times = [&](bool fuse) {
    const FusedOps fused(graph, b.plan, b.program, b.info, fuse);
    return ModelledOpTimes(graph, b.program, shape, rig, {}, fused.In(shape, rig));
  };
  const std::vector<Nanos> apart = times(false), together = times(true);
  Nanos saved{4 * rig.devices[0].launch_gap.value};
  for (size_t i = 0; i < apart.size(); ++i) {
    if (b.program.ops[i].devices[0].value == 0) saved += apart[i] - together[i];
  }
  EXPECT_EQ(price(false).timeline.length - price(true).timeline.length, saved);
  EXPECT_EQ(price(true).timeline.ops.size(), b.program.ops.size()) << "all ops are laid";
  EXPECT_EQ(price(true).traffic.size(), price(false).traffic.size());
}

TEST_F(PricerTest, IntervalHoldsThePriceAndTheLineIsLessCertain) {
  PlanBuilder b = TensorSplit(graph, {1, 1}, Algorithm::kOneShot);
  Rig rig = SmallRig(2);
  StepShape shape = DecodeShape(b.program, 1, 10);
  Price line = PriceOf(b, shape, rig);
  EXPECT_LT(line.low, line.timeline.length);
  EXPECT_GT(line.high, line.timeline.length);
  // The same times as a table of three points: same price, tighter interval.
  TimePoint far{Bytes{2000000}, Nanos{2005000}};
  rig.link.send.points.push_back(far);
  Price table = PriceOf(b, shape, rig);
  EXPECT_EQ(table.timeline.length, line.timeline.length);
  EXPECT_LT(table.high, line.high);
  EXPECT_GT(table.low, line.low);
}

// The interval is that of the curves that the step is priced by.
TEST_F(PricerTest, IntervalOfAReplayIsThatOfItsCurves) {
  PlanBuilder b = TensorSplit(graph, {1, 1}, Algorithm::kOneShot);
  b.program.kind = ProgramKind::kDecode;
  Rig rig = SmallRig(2);
  const StepShape shape = DecodeShape(b.program, 1, 10);
  const Price eager = PriceOf(b, shape, rig);
  rig.link.send_replayed = rig.link.send;
  const Price same = PriceOf(b, shape, rig);
  EXPECT_EQ(same.timeline.length, eager.timeline.length);
  EXPECT_EQ(same.low, eager.low);
  EXPECT_EQ(same.high, eager.high);
  for (TimePoint& point : rig.link.send_replayed.points) point.time = point.time - Nanos{2000};
  EXPECT_LT(PriceOf(b, shape, rig).timeline.length, eager.timeline.length);
  EXPECT_LT(PriceOf(b, shape, rig).high, eager.high);
}

TEST_F(PricerTest, CriticalPathCoversTheStep) {
  for (PlanBuilder b : {LayerSplit(graph, 3, 1), LayerSplit(graph, 3, 4),
                        TensorSplit(graph, {3, 1}, Algorithm::kOneShot), Offload(graph)}) {
    Rig rig = SmallRig(b.plan.n_devices);
    Price price = PriceOf(b, PrefillShape(b.program, 60), rig);
    ASSERT_FALSE(price.critical_path.empty());
    EXPECT_EQ(price.timeline.ops[price.critical_path.front()].start, Nanos{0});
    Nanos reached;
    for (uint32_t op : price.critical_path) {
      EXPECT_EQ(price.timeline.ops[op].start, reached) << "a gap before op " << op;
      reached = price.timeline.ops[op].release;
    }
    EXPECT_EQ(price.timeline.ops[price.critical_path.back()].end, price.timeline.length);
  }
}

TEST_F(PricerTest, FasterLinksAndDevicesNeverPriceHigher) {
  PlanBuilder b = TensorSplit(graph, {1, 1}, Algorithm::kOneShot);
  StepShape shape = PrefillShape(b.program, 200);
  Rig rig = SmallRig(2);
  Nanos base = PriceOf(b, shape, rig).timeline.length;
  Rig faster = rig;
  faster.devices[0].flops *= 2;
  faster.devices[1].flops *= 2;
  EXPECT_LT(PriceOf(b, shape, faster).timeline.length, base);
  EXPECT_LT(PriceOf(b, shape, SmallRig(2, LinkKind::kIdeal)).timeline.length, base);
}

TEST_F(PricerTest, EmptyStepIsFree) {
  PlanBuilder b = LayerSplit(graph, 3, 2);
  StepShape shape;
  shape.microbatches.resize(2);
  Price price = PriceOf(b, shape, SmallRig(2));
  EXPECT_EQ(price.timeline.length, Nanos{0});
  EXPECT_EQ(price.high, Nanos{0});
  EXPECT_TRUE(price.critical_path.empty());
  EXPECT_TRUE(price.traffic.empty());
}

// What the catalogue must say of a model that everyone knows: the ground the reports stand on.
TEST(PricerCatalogueTest, An8bModelOnTwoCardsBehavesAsPublished) {
  Catalogue catalogue({"scenarios"});
  std::shared_ptr<const Model> model = MakeShapeOnlyModel(ParseSyntheticSpec(
      "h=4096,l=32,heads=32,kv=8,hd=128,ffn=14336,vocab=128256,ctx=8192,type=q8_0,embed=q8_0,"
      "tied=0,seed=1"));
  const BlockGraph& graph = model->blocks();
  PlanBuilder one = TensorSplit(graph, {1}, Algorithm::kNone);
  PlanBuilder two = TensorSplit(graph, {1, 1}, Algorithm::kOneShot);
  two.plan.wire = WireType::kBf16;
  auto price = [&](const PlanBuilder& b, const StepShape& shape, const char* rig) {
    return PriceStep(graph, b.plan, b.program, b.info, shape, catalogue.LoadRig(rig))
        .timeline.length.Seconds();
  };
  StepShape decode = DecodeShape(one.program, 1, 512);
  StepShape prefill = PrefillShape(one.program, 2048);
  // One 3090 streams 8.5 GB of weights at 80 % of 936 GB/s: 11 ms a token and some overhead.
  EXPECT_NEAR(price(one, decode, "2x3090-nvlink"), 12.5e-3, 2e-3);
  // The bridge: little for decode, much for prefill.
  double decode_gain = price(two, decode, "2x3090-pcie") / price(two, decode, "2x3090-nvlink");
  double prefill_gain = price(two, prefill, "2x3090-pcie") / price(two, prefill, "2x3090-nvlink");
  EXPECT_GT(prefill_gain, 1.2);
  EXPECT_GT(prefill_gain, decode_gain);
  EXPECT_LT(price(two, decode, "2x3090-nvlink"), price(one, decode, "2x3090-nvlink"));
}

}  // namespace
}  // namespace tandem
