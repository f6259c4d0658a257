// Which op waits for which, and in which queue it stands.
#include "engine/plan/dependencies.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/plan/plan_builder.h"

namespace tandem {
namespace {

using namespace testing_plans;  // NOLINT: the builder's names read as this file's own

class DependenciesTest : public testing::Test {
 protected:
  // Whether op `i` waits for `on` as `kind`.
  bool Waits(const PlanBuilder& b, uint32_t i, uint32_t on, DependencyKind kind) {
    auto all = DependenciesOf(graph, b.program, b.info);
    return std::find(all[i].begin(), all[i].end(), Dependency{on, kind}) != all[i].end();
  }

  std::shared_ptr<const Model> model = SmallModel();
  const BlockGraph& graph = model->blocks();
};

TEST_F(DependenciesTest, QueuesAreOneADeviceAndKind) {
  Op op;
  op.kind = OpKind::kFetch;
  op.devices = {DeviceId{0}, DeviceId{1}};
  EXPECT_EQ(QueueOn(op, 0), QueueKind::kCopyOut);
  EXPECT_EQ(QueueOn(op, 1), QueueKind::kCopyIn);
  op.kind = OpKind::kTransfer;
  EXPECT_EQ(QueueOn(op, 0), QueueKind::kComm);
  op.queue = QueueKind::kCopyOut;
  EXPECT_EQ(QueueOn(op, 1), QueueKind::kCopyOut);
}

TEST_F(DependenciesTest, OperandsAndQueuesOfALayerSplit) {
  PlanBuilder b(graph, 2, 2, MicrobatchKind::kByChunk);
  ValueId x0 = b.Run(0, b.All(0), 0, 0, std::nullopt);  // op 0
  ValueId t0 = b.Transfer(x0, 1);                       // op 1
  ValueId x1 = b.Run(0, b.All(0), 0, 1, std::nullopt);  // op 2
  ValueId t1 = b.Transfer(x1, 1);                       // op 3
  b.Norm(1, 1, 0, t0);                                  // op 4
  b.Norm(1, 1, 1, t1);                                  // op 5
  EXPECT_TRUE(Waits(b, 1, 0, DependencyKind::kValue));
  EXPECT_TRUE(Waits(b, 2, 0, DependencyKind::kQueue));
  EXPECT_FALSE(Waits(b, 2, 1, DependencyKind::kQueue));
  EXPECT_TRUE(Waits(b, 3, 1, DependencyKind::kQueue));
  EXPECT_TRUE(Waits(b, 5, 4, DependencyKind::kQueue));
  EXPECT_TRUE(Waits(b, 5, 3, DependencyKind::kValue));
}

TEST_F(DependenciesTest, FetchWaitsForReadersAndReadersForTheirFetch) {
  PlanBuilder b(graph, 1);
  b.plan.slots = {Slot{DeviceId{0}, Bytes{1 << 20}}};
  b.Fetch(0, b.All(0), kHost, 0, 0);       // op 0
  b.Run(0, b.All(0), 0, 0, std::nullopt);  // op 1
  b.Run(0, b.All(0), 0, 0, std::nullopt);  // op 2
  b.Fetch(2, b.All(2), kHost, 0, 0);       // op 3
  EXPECT_TRUE(Waits(b, 1, 0, DependencyKind::kWeights));
  EXPECT_TRUE(Waits(b, 2, 0, DependencyKind::kWeights));
  EXPECT_TRUE(Waits(b, 3, 1, DependencyKind::kSlot));
  EXPECT_TRUE(Waits(b, 3, 2, DependencyKind::kSlot));
  EXPECT_TRUE(Waits(b, 3, 0, DependencyKind::kSlot));
}

// RUN on d0, its KV moved to d1, RUN of the next microbatch on d1.
PlanBuilder MovedKv(const BlockGraph& graph, MicrobatchKind kind, UnitRange second) {
  PlanBuilder b(graph, 2, 2, kind);
  ValueId n0 = b.Norm(1, 0, 0, b.Run(0, b.All(0), 0, 0, std::nullopt));  // ops 0, 1
  ValueId n1 = b.Norm(1, 1, 1, b.Run(0, b.All(0), 1, 1, std::nullopt));  // ops 2, 3
  b.Run(1, UnitRange{0, 2}, 0, 0, n0);                                   // op 4
  b.KvMove(1, UnitRange{0, 2}, 0, 1, 0);                                 // op 5
  b.Run(1, second, 1, 1, n1);                                            // op 6
  return b;
}

TEST_F(DependenciesTest, KvMovesFollowTheirRunAndLaterChunksFollowThem) {
  PlanBuilder chunks = MovedKv(graph, MicrobatchKind::kByChunk, UnitRange{0, 2});
  EXPECT_TRUE(Waits(chunks, 5, 4, DependencyKind::kKv));
  EXPECT_TRUE(Waits(chunks, 6, 5, DependencyKind::kKv));
  // Other sequences' KV, and other units', are no concern.
  PlanBuilder sequences = MovedKv(graph, MicrobatchKind::kBySequence, UnitRange{0, 2});
  EXPECT_FALSE(Waits(sequences, 6, 5, DependencyKind::kKv));
  PlanBuilder units = MovedKv(graph, MicrobatchKind::kByChunk, UnitRange{2, 4});
  EXPECT_FALSE(Waits(units, 6, 5, DependencyKind::kKv));
}

}  // namespace
}  // namespace tandem
