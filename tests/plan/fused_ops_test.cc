// Which ops of a step run as one, and what traffic that leaves them.
#include "engine/plan/fused_ops.h"

#include <gtest/gtest.h>

#include "tests/plan/plan_builder.h"

namespace tandem {
namespace {

using namespace testing_plans;  // NOLINT: the builder's names read as this file's own

class FusedOpsTest : public testing::Test {
 protected:
  std::vector<uint32_t> In(const PlanBuilder& b, uint32_t sequences, const Rig& rig,
                           bool collectives = true) {
    return FusedOps(graph, b.plan, b.program, b.info, collectives)
        .In(DecodeShape(b.program, sequences, 10), rig);
  }
  // ADDs that run with an ALL_REDUCE.
  static size_t Along(const PlanBuilder& b, const std::vector<uint32_t>& with) {
    size_t count = 0;
    for (size_t i = 0; i < with.size(); ++i) {
      if (with[i] != kNoOp && b.program.ops[i].kind == OpKind::kAdd) ++count;
    }
    return count;
  }

  std::shared_ptr<const Model> model = SmallModel();
  const BlockGraph& graph = model->blocks();
};

TEST_F(FusedOpsTest, AnAddRunsTheNormOfItsSumThatComesNextOnItsDevice) {
  PlanBuilder b = LayerSplit(graph, 3, 1);
  const std::vector<uint32_t> with = In(b, 1, SmallRig(2));
  size_t pairs = 0;
  for (uint32_t i = 0; i < with.size(); ++i) {
    const Op& op = b.program.ops[i];
    const uint32_t before = i > 0 ? i - 1 : 0;
    // Not the norm of EMBED's rows, of what another device added, nor HEAD's, which is of fewer.
    const bool next = op.kind == OpKind::kNorm && op.block != graph.head() &&
                      b.program.ops[before].kind == OpKind::kAdd;
    EXPECT_EQ(with[i], next ? before : kNoOp) << i;
    pairs += next ? 1 : 0;
  }
  EXPECT_EQ(pairs, 2u);
}

TEST_F(FusedOpsTest, NothingRunsWithAnOpThatHasNoWork) {
  PlanBuilder b = LayerSplit(graph, 3, 2);
  StepShape shape = DecodeShape(b.program, 2, 10);
  shape.microbatches[1] = {};
  const std::vector<uint32_t> with =
      FusedOps(graph, b.plan, b.program, b.info).In(shape, SmallRig(2));
  size_t pairs = 0;
  for (uint32_t i = 0; i < with.size(); ++i) {
    if (with[i] == kNoOp) continue;
    EXPECT_EQ(b.program.ops[i].microbatch, 0u);
    ++pairs;
  }
  EXPECT_EQ(pairs, 2u);
}

TEST_F(FusedOpsTest, SmallAllReducesTakeTheirAddsAlong) {
  PlanBuilder b = TensorSplit(graph, {1, 1}, Algorithm::kOneShot);
  const Rig rig = SmallRig(2);
  const std::vector<uint32_t> with = In(b, 1, rig);
  // Two layers of two blocks on two devices; EMBED's sum goes on as it is.
  EXPECT_EQ(Along(b, with), 8u);
  for (uint32_t i = 0; i < with.size(); ++i) {
    if (with[i] == kNoOp) continue;
    const Op& op = b.program.ops[i];
    const Op& first = b.program.ops[with[i]];
    EXPECT_EQ(first.kind, op.kind == OpKind::kAdd ? OpKind::kAllReduce : OpKind::kAdd);
    EXPECT_EQ(std::count(first.out.begin(), first.out.end(), op.in.back()), 1);
  }
  // As many values as cross as words.
  EXPECT_EQ(Along(b, In(b, kMostPeerWords / 128, rig)), 8u);
  EXPECT_EQ(Along(b, In(b, kMostPeerWords / 128 + 1, rig)), 0u);
  EXPECT_EQ(Along(b, In(b, 1, rig, false)), 0u) << "told not to";
  const Rig staged = SmallRig(2, LinkKind::kHostStaged);
  EXPECT_EQ(Along(b, In(b, kMostHostWords / 128, staged)), 8u);
  EXPECT_EQ(Along(b, In(b, kMostHostWords / 128 + 1, staged)), 0u);
  EXPECT_EQ(Along(b, In(b, 1, ThisMachineRig(2))), 0u) << "CPU devices";
  for (PathKind path : {PathKind::kCopy, PathKind::kNccl}) {
    for (Op& op : b.program.ops) op.path = path;
    EXPECT_EQ(Along(b, In(b, 1, rig)), 0u) << ToString(path);
  }
}

TEST_F(FusedOpsTest, OthersDoNot) {
  PlanBuilder two_shot = TensorSplit(graph, {1, 1}, Algorithm::kTwoShot);
  EXPECT_EQ(Along(two_shot, In(two_shot, 1, SmallRig(2))), 0u);
  // Kernels are over all cards.
  PlanBuilder part = TensorSplit(graph, {1, 1}, Algorithm::kOneShot);
  part.plan.n_devices = 3;
  EXPECT_EQ(Along(part, In(part, 1, SmallRig(3))), 0u);
  Rig beside = SmallRig(3);
  beside.devices[2].on_host = true;
  EXPECT_EQ(Along(part, In(part, 1, beside)), 8u) << "the processor is none of them";
  // A sum that something else reads too.
  PlanBuilder read = TensorSplit(graph, {1, 1}, Algorithm::kOneShot);
  for (const Op& op : std::vector<Op>(read.program.ops)) {
    if (op.kind == OpKind::kAllReduce) read.Norm(1, 0, 0, op.out[0]);
  }
  EXPECT_EQ(Along(read, In(read, 1, SmallRig(2))), 0u);
}

TEST(TakesRowsAlongTest, ScalesOfTheWireAreNotOfTwoRows) {
  EXPECT_TRUE(TakesRowsAlong(PathKind::kP2p, WireType::kQ8, 2, 96));
  EXPECT_FALSE(TakesRowsAlong(PathKind::kP2p, WireType::kQ8, 2, 100));
  EXPECT_TRUE(TakesRowsAlong(PathKind::kP2p, WireType::kQ8, 1, 100));
  EXPECT_TRUE(TakesRowsAlong(PathKind::kP2p, WireType::kBf16, 2, 100));
  EXPECT_FALSE(TakesRowsAlong(PathKind::kP2p, WireType::kF32, 0, 100));
}

TEST_F(FusedOpsTest, TrafficIsThatOfOnePass) {
  PlanBuilder b = TensorSplit(graph, {1, 1}, Algorithm::kOneShot);
  const StepShape shape = DecodeShape(b.program, 3, 10);
  const double row = 3 * 128 * 4.0;
  // What the ADDs and NORMs of one block on one device move.
  const auto moved = [&](const std::vector<uint32_t>& with) {
    const std::vector<double> shares = TrafficShares(b.program, with);
    double adds = 0, norms = 0;
    for (size_t i = 0; i < shares.size(); ++i) {
      const Op& op = b.program.ops[i];
      const double bytes = shares[i] * CostOf(graph, op, ShapeFor(op, shape)).memory_bytes;
      if (op.devices[0].value != 0) continue;
      if (op.kind == OpKind::kAdd && op.block.value == 1) adds += bytes;
      if (op.kind == OpKind::kNorm && op.block.value == 2) norms += bytes;
    }
    return std::pair(adds / row, norms / row);
  };
  EXPECT_EQ(moved(std::vector<uint32_t>(b.program.ops.size(), kNoOp)), std::pair(3.0, 2.0));
  const auto [add, norm] = moved(FusedOps(graph, b.plan, b.program, b.info).Pairs(shape));
  EXPECT_DOUBLE_EQ(add + norm, 4.0);
  EXPECT_DOUBLE_EQ(add / norm, 3.0 / 2);
  const auto along = moved(FusedOps(graph, b.plan, b.program, b.info).In(shape, SmallRig(2)));
  EXPECT_DOUBLE_EQ(along.first, 1.0) << "the residual is read";
  EXPECT_DOUBLE_EQ(along.second, 1.0) << "the norm is written";
}

}  // namespace
}  // namespace tandem
