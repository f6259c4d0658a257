// Bytes, flops and step shapes against closed forms written here by hand.
#include "engine/plan/cost.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/plan/plan_builder.h"

namespace tandem {
namespace {

using namespace testing_plans;  // NOLINT: the builder's names read as this file's own

constexpr DeviceId kD0{0};
constexpr DeviceId kD1{1};

class CostTest : public testing::Test {
 protected:
  // Summed bytes per (src, dst).
  std::map<std::pair<DeviceId, DeviceId>, uint64_t> Pairs(const PlanBuilder& b,
                                                          const StepShape& shape, const Rig& rig) {
    std::map<std::pair<DeviceId, DeviceId>, uint64_t> sums;
    for (const TrafficRow& row : TrafficOf(graph, b.plan, b.program, b.info, shape, rig)) {
      EXPECT_EQ(row.rows, shape.rows());
      EXPECT_NE(row.path, PathKind::kAuto);
      sums[{row.src, row.dst}] += row.bytes.value;
    }
    return sums;
  }

  std::shared_ptr<const Model> model = SmallModel();
  const BlockGraph& graph = model->blocks();
  const uint64_t hidden = 128;
};

TEST_F(CostTest, PrefillShapeCutsChunksAtFloors) {
  Program program;
  program.microbatches = 3;
  program.microbatch_kind = MicrobatchKind::kByChunk;
  StepShape shape = PrefillShape(program, 10);
  ASSERT_EQ(shape.microbatches.size(), 3u);
  EXPECT_EQ(shape.microbatches[0].rows, 3u);
  EXPECT_EQ(shape.microbatches[1].rows, 3u);
  EXPECT_EQ(shape.microbatches[2].rows, 4u);
  EXPECT_EQ(shape.microbatches[1].attended, 4u + 5 + 6);
  EXPECT_EQ(shape.microbatches[1].kv_tokens, 6u);
  EXPECT_EQ(shape.microbatches[2].kv_tokens, 10u);
  EXPECT_EQ(shape.sampled(), 1u);
  EXPECT_EQ(shape.microbatches[2].sampled, 1u);
  EXPECT_EQ(shape.rows(), 10u);
  // Fewer tokens than microbatches: the first ones are empty, the last one samples.
  StepShape small = PrefillShape(program, 1);
  EXPECT_EQ(small.microbatches[0].rows, 0u);
  EXPECT_EQ(small.microbatches[0].sampled, 0u);
  EXPECT_EQ(small.microbatches[2].sampled, 1u);
  EXPECT_EQ(PrefillShape(program, 0).sampled(), 0u);
}

TEST_F(CostTest, PrefillOfOneSequenceBySlotIsOneMicrobatch) {
  Program program;
  program.microbatches = 2;
  program.microbatch_kind = MicrobatchKind::kBySequence;
  StepShape shape = PrefillShape(program, 9);
  EXPECT_EQ(shape.microbatches[0].rows, 9u);
  EXPECT_EQ(shape.microbatches[1].rows, 0u);
  EXPECT_EQ(shape.sampled(), 1u);
}

TEST_F(CostTest, DecodeShapeFollowsSlotsOrChunks) {
  Program program;
  program.microbatches = 3;
  program.microbatch_kind = MicrobatchKind::kBySequence;
  StepShape shape = DecodeShape(program, 5, 100);
  EXPECT_EQ(shape.microbatches[0].rows, 2u);  // slots 0 and 3
  EXPECT_EQ(shape.microbatches[1].rows, 2u);  // 1 and 4
  EXPECT_EQ(shape.microbatches[2].rows, 1u);
  EXPECT_EQ(shape.microbatches[0].kv_tokens, 202u);
  EXPECT_EQ(shape.sampled(), 5u);
  program.microbatch_kind = MicrobatchKind::kByChunk;
  shape = DecodeShape(program, 5, 100);
  EXPECT_EQ(shape.microbatches[0].rows, 1u);
  EXPECT_EQ(shape.microbatches[1].rows, 2u);
  EXPECT_EQ(shape.microbatches[2].rows, 2u);
}

TEST_F(CostTest, LayerSplitMovesOneActivationAndTheIds) {
  for (uint32_t microbatches : {1u, 2u, 3u}) {
    PlanBuilder b = LayerSplit(graph, 3, microbatches);
    StepShape shape = PrefillShape(b.program, 17);
    auto pairs = Pairs(b, shape, SmallRig(2));
    EXPECT_EQ((pairs[{kD0, kD1}]), 17 * hidden * 4);
    EXPECT_EQ((pairs[{kD1, kHost}]), 4u);
    EXPECT_EQ(pairs.size(), 2u);
  }
}

TEST_F(CostTest, BoundaryBeforeTheHeadMovesTheResidualOfAllRows) {
  PlanBuilder b = LayerSplit(graph, graph.size() - 1, 1);
  StepShape shape = PrefillShape(b.program, 17);
  EXPECT_EQ((Pairs(b, shape, SmallRig(2))[{kD0, kD1}]), 17 * hidden * 4);
}

TEST_F(CostTest, TensorSplitOfTwoMatchesItsClosedForm) {
  // EMBED and four blocks are reduced: 5 * rows * hidden each way, and the other's logits.
  for (auto shares : {std::vector<uint32_t>{1, 1}, {2, 1}, {3, 1}}) {
    for (Algorithm algorithm : {Algorithm::kNone, Algorithm::kOneShot}) {
      PlanBuilder b = TensorSplit(graph, shares, algorithm);
      StepShape shape = PrefillShape(b.program, 7);
      auto pairs = Pairs(b, shape, SmallRig(2));
      const Block& head = graph.at(graph.head());
      std::vector<UnitRange> vocabulary = Shares(graph, graph.head().value, shares);
      EXPECT_EQ((pairs[{kD0, kD1}]),
                5 * 7 * hidden * 4 + 4 * uint64_t{head.ElemCount(vocabulary[0])});
      EXPECT_EQ((pairs[{kD1, kD0}]),
                5 * 7 * hidden * 4 + 4 * uint64_t{head.ElemCount(vocabulary[1])});
      EXPECT_EQ((pairs[{kD0, kHost}]), 4u);
    }
  }
}

TEST_F(CostTest, TwoShotOfTwoMovesOneActivationEachWay) {
  PlanBuilder b = TensorSplit(graph, {2, 1}, Algorithm::kTwoShot);
  StepShape shape = DecodeShape(b.program, 3, 10);
  auto pairs = Pairs(b, shape, SmallRig(2));
  std::vector<UnitRange> vocabulary = Shares(graph, graph.head().value, {2, 1});
  const Block& head = graph.at(graph.head());
  // Each way one shard of the partials and one of the sums: together the whole.
  EXPECT_EQ((pairs[{kD0, kD1}]),
            5 * 3 * hidden * 4 + 3 * 4 * uint64_t{head.ElemCount(vocabulary[0])});
}

TEST_F(CostTest, TwoShotOfThreeMovesTwoUnevenShards) {
  PlanBuilder b = TensorSplit(graph, {2, 1, 1}, Algorithm::kTwoShot);
  StepShape shape = DecodeShape(b.program, 1, 10);
  auto pairs = Pairs(b, shape, SmallRig(3));
  // 128 elements over three ranks: shards of 42, 43 and 43.
  const uint64_t shard[] = {42, 43, 43};
  std::vector<UnitRange> vocabulary = Shares(graph, graph.head().value, {2, 1, 1});
  const Block& head = graph.at(graph.head());
  for (int32_t i = 0; i < 3; ++i) {
    for (int32_t j = 0; j < 3; ++j) {
      if (i == j) continue;
      uint64_t reduced = 5 * 4 * (shard[j] + shard[i]);
      EXPECT_EQ((pairs[{DeviceId{i}, DeviceId{j}}]),
                reduced + 4 * uint64_t{head.ElemCount(vocabulary[i])})
          << i << " to " << j;
    }
  }
}

TEST_F(CostTest, WireTypesScaleActivationsOnly) {
  PlanBuilder b = TensorSplit(graph, {1, 1, 1}, Algorithm::kOneShot);
  StepShape shape = DecodeShape(b.program, 1, 10);
  std::vector<UnitRange> vocabulary = Shares(graph, graph.head().value, {1, 1, 1});
  const Block& head = graph.at(graph.head());
  for (WireType wire : {WireType::kF32, WireType::kBf16, WireType::kQ8}) {
    b.plan.wire = wire;
    auto pairs = Pairs(b, shape, SmallRig(3));
    EXPECT_EQ((pairs[{kD0, kD1}]), 5 * WireBytes(wire, hidden).value +
                                       WireBytes(wire, head.ElemCount(vocabulary[0])).value);
    EXPECT_EQ((pairs[{kD0, kHost}]), 4u);
  }
}

TEST_F(CostTest, SequenceParallelMovesHalvesByRows) {
  PlanBuilder b(graph, 3);
  std::vector<ValueId> y;
  std::vector<UnitRange> ranges = Shares(graph, 2, {1, 1, 1});
  for (uint32_t d = 0; d < 3; ++d) y.push_back(b.Run(2, ranges[d], d, 0, 0));
  b.AllGather(b.ReduceScatter(y));
  StepShape shape = PrefillShape(b.program, 8);  // rows 2, 3 and 3
  auto pairs = Pairs(b, shape, SmallRig(3));
  EXPECT_EQ((pairs[{kD0, kD1}]), (3 + 2) * hidden * 4);
  EXPECT_EQ((pairs[{kD1, kD0}]), (2 + 3) * hidden * 4);
  EXPECT_EQ((pairs[{kD1, DeviceId{2}}]), (3 + 3) * hidden * 4);
}

TEST_F(CostTest, OffloadFetchesEveryBlockOnceAStep) {
  PlanBuilder b = Offload(graph);
  uint64_t weights = 0;
  for (const Block& block : graph.blocks) weights += block.UnitBytes(block.AllUnits()).value;
  for (uint32_t tokens : {1u, 50u}) {
    auto pairs = Pairs(b, PrefillShape(b.program, tokens), SmallRig(1));
    EXPECT_EQ((pairs[{kHost, kD0}]), weights);
    EXPECT_EQ((pairs[{kD0, kHost}]), 4u);
  }
}

TEST_F(CostTest, KvMoveCarriesTheRowsOfTheStep) {
  PlanBuilder b(graph, 2);
  b.KvMove(1, UnitRange{1, 3}, 0, 1, 0);
  StepShape shape = DecodeShape(b.program, 2, 9);
  const Block& block = graph.at(BlockId{1});
  uint64_t heads = block.ElemCount(UnitRange{1, 3});
  // Keys and values in f16, 16 wide, for one appended row of each of two sequences.
  EXPECT_EQ((Pairs(b, shape, SmallRig(2))[{kD0, kD1}]), heads * 2 * 2 * 16 * 2);
}

TEST_F(CostTest, HostStagedBooksBothHops) {
  Rig rig = SmallRig(2, LinkKind::kHostStaged);
  PlanBuilder b = LayerSplit(graph, 3, 1);
  StepShape shape = PrefillShape(b.program, 17);
  std::vector<TrafficRow> rows = TrafficOf(graph, b.plan, b.program, b.info, shape, rig);
  ASSERT_EQ(rows.size(), 3u);
  uint64_t staged = 0;
  for (const TrafficRow& row : rows) {
    if (row.path == PathKind::kHostStaged) staged += row.bytes.value;
    EXPECT_TRUE(row.src.IsHost() || row.dst.IsHost());
  }
  EXPECT_EQ(staged, 2 * 17 * hidden * 4);
  // The ids do not go over the staged path: they take the card's own way to the host.
  EXPECT_EQ(rows.back().path, PathKind::kCopy);
}

TEST_F(CostTest, EmptyMicrobatchesBookNothing) {
  PlanBuilder b = LayerSplit(graph, 3, 3);
  StepShape shape;
  shape.microbatches.resize(3);
  EXPECT_TRUE(TrafficOf(graph, b.plan, b.program, b.info, shape, SmallRig(2)).empty());
  shape = PrefillShape(b.program, 1);
  EXPECT_EQ((Pairs(b, shape, SmallRig(2))[{kD0, kD1}]), hidden * 4);
  // A chunk without a sampled row leaves the head alone, and its weights unread.
  shape = PrefillShape(b.program, 30);
  for (const Op& op : b.program.ops) {
    bool head = op.kind == OpKind::kSample || (op.block == graph.head());
    OpCost cost = CostOf(graph, op, ShapeFor(op, shape));
    EXPECT_EQ(DoesWork(graph, op, b.info, shape), !head || op.microbatch == 2);
    if (op.kind != OpKind::kTransfer) {
      EXPECT_EQ(cost.memory_bytes > 0, !head || op.microbatch == 2) << ToString(op.kind);
    }
  }
}

TEST_F(CostTest, EmptyOffloadStepFetchesNothing) {
  PlanBuilder b = Offload(graph);
  StepShape shape;
  shape.microbatches.resize(1);
  EXPECT_TRUE(TrafficOf(graph, b.plan, b.program, b.info, shape, SmallRig(1)).empty());
}

TEST_F(CostTest, FlopsAndWeightsAddUpOverUnits) {
  // A split does the work of the whole: products exactly, memory plus its activations.
  MicrobatchShape shape{.rows = 6, .sampled = 6, .attended = 100, .kv_tokens = 50};
  for (uint32_t block = 1; block < graph.size(); ++block) {
    Op whole;
    whole.block = BlockId{block};
    whole.units = graph.at(whole.block).AllUnits();
    OpCost full = CostOf(graph, whole, shape);
    double flops = 0, kv = 0, attention = 0;
    for (UnitRange range : Shares(graph, block, {2, 1, 1})) {
      Op part = whole;
      part.units = range;
      OpCost cost = CostOf(graph, part, shape);
      flops += cost.flops;
      kv += cost.kv_bytes;
      attention += cost.attention_flops;
    }
    EXPECT_DOUBLE_EQ(flops, full.flops) << block;
    EXPECT_DOUBLE_EQ(kv, full.kv_bytes) << block;
    EXPECT_DOUBLE_EQ(attention, full.attention_flops) << block;
  }
}

TEST_F(CostTest, AttentionCostMatchesItsFormula) {
  Op op;
  op.block = BlockId{1};
  op.units = graph.at(op.block).AllUnits();
  MicrobatchShape shape{.rows = 2, .sampled = 2, .attended = 30, .kv_tokens = 30};
  OpCost cost = CostOf(graph, op, shape);
  double projections = 2.0 * 2 * (128 * 128 + 2 * 128 * 64 + 128 * 128);  // q, k and v, o
  double attention = 4.0 * 8 * 16 * 30;  // both products, eight query heads of 16
  EXPECT_DOUBLE_EQ(cost.attention_flops, attention);
  EXPECT_DOUBLE_EQ(cost.flops, projections + attention);
  double kv = (30 + 2) * 2.0 * 2 * 4 * 16;
  EXPECT_DOUBLE_EQ(cost.kv_bytes, kv);
  double weights = (128.0 * 128 * 2 + 2 * 128.0 * 64) * 34 / 32;
  EXPECT_DOUBLE_EQ(cost.memory_bytes, weights + kv + 2 * 2 * 128 * 4);
}

TEST_F(CostTest, AWindowBoundsWhatARowLooksAt) {
  BlockGraph windowed = graph;
  windowed.config.sliding_window = 8;
  Op op;
  op.block = BlockId{1};
  op.units = graph.at(op.block).AllUnits();
  // Two sequences that decode at position 20: 8 positions each.
  MicrobatchShape shape{.rows = 2, .sampled = 2, .attended = 42, .kv_tokens = 42};
  OpCost cost = CostOf(windowed, op, shape);
  EXPECT_DOUBLE_EQ(cost.attention_flops, 4.0 * 8 * 16 * 16);
  EXPECT_DOUBLE_EQ(cost.kv_bytes, (16 + 2) * 2.0 * 2 * 4 * 16);
  // Within the window all is as without.
  shape = {.rows = 2, .sampled = 2, .attended = 9, .kv_tokens = 9};
  EXPECT_DOUBLE_EQ(CostOf(windowed, op, shape).flops, CostOf(graph, op, shape).flops);
  EXPECT_DOUBLE_EQ(CostOf(windowed, op, shape).kv_bytes, CostOf(graph, op, shape).kv_bytes);
}

TEST_F(CostTest, HeadNormsAreReadWithTheWeights) {
  BlockGraph normed = graph;
  normed.blocks[1].head_norm_bytes = Bytes{128};
  Op op;
  op.block = BlockId{1};
  op.units = graph.at(op.block).AllUnits();
  const MicrobatchShape shape{.rows = 1, .sampled = 1, .attended = 3, .kv_tokens = 3};
  EXPECT_DOUBLE_EQ(CostOf(normed, op, shape).memory_bytes,
                   CostOf(graph, op, shape).memory_bytes + 128);
}

TEST_F(CostTest, RooflineTakesTheTighterRoof) {
  DeviceSpec device{.memory_bytes_per_s = 100, .flops = 1000};
  EXPECT_DOUBLE_EQ(RooflineSeconds(OpCost{.flops = 2000, .memory_bytes = 100}, device), 2);
  EXPECT_DOUBLE_EQ(RooflineSeconds(OpCost{.flops = 2000, .memory_bytes = 300}, device), 3);
}

}  // namespace
}  // namespace tandem
