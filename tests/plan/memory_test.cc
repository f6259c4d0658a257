// What plans need of each memory, by hand arithmetic on a graph of round numbers.
#include "engine/plan/memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/human_bytes.h"
#include "engine/plan/shards.h"
#include "engine/plan/verifier.h"
#include "tests/support/plan_builders.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;
using testing::TestRig;
using testing::TinyGraph;

// Hidden 4: a row is 16 bytes; an embedding element too, a KV head has 4*2*4 floats = 128 bytes, an
// FFN column 12 floats = 48, a norm 16; KV is 8 bytes a head and token.
constexpr testing::TinyShape kShape = {.layers = 1, .kv_heads = 3, .ffn = 5, .vocab = 7};
constexpr uint64_t kVocabBytes = 7 * 16, kAttentionBytes = 3 * 128, kMlpBytes = 5 * 48, kNorm = 16;

MemoryTable TableOf(const BlockGraph& graph, const Plan& plan, const PlanLimits& limits) {
  return VerifyOrFail(plan, graph, TestRig(4), limits).memory;
}

TEST(MemoryTest, SingleHoldsEverythingOnce) {
  BlockGraph graph = TinyGraph(kShape);
  PlanLimits limits{.max_step_tokens = 8, .max_sequences = 2, .context = 200};
  MemoryTable table = TableOf(graph, testing::SinglePlan(graph), limits);
  ASSERT_EQ(table.rows.size(), 2u);
  const MemoryRow& d0 = table.rows[0];
  EXPECT_EQ(d0.device, DeviceId{0});
  EXPECT_EQ(d0.weights.value, 2 * kVocabBytes + kAttentionBytes + kMlpBytes + 3 * kNorm);
  // 100 tokens a sequence, in pages of 64: 128; two sequences, three heads.
  EXPECT_EQ(d0.kv.value, 2u * 128 * 3 * 8);
  EXPECT_EQ(d0.slots.value, 0u);
  // X, Y and the next X of ADD: three rows of 16 bytes for each of 8 tokens.
  EXPECT_EQ(d0.activations.value, 3u * 8 * 16);
  // Hidden 4, 6 rows of each head matrix, 5 of the MLP's, 7 of the vocabulary: padded to 16 rows.
  EXPECT_EQ(d0.workspace, WorkspaceBytes(graph, 8) + PackingBytes(graph, BlockId{0}, 0, 7) +
                              PackingBytes(graph, BlockId{1}, 0, 3) +
                              PackingBytes(graph, BlockId{2}, 0, 5) +
                              PackingBytes(graph, BlockId{3}, 0, 7));
  EXPECT_EQ(PackingBytes(graph, BlockId{2}, 0, 5).value, 8u * 64 + 11 * 48 + 12 * 5 * 48 / 4);
  EXPECT_EQ(table.rows[1].device, kHost);
  EXPECT_EQ(table.rows[1].total().value, 8u * 4) << "sampled ids";
}

TEST(MemoryTest, WorkspaceFollowsItsFormula) {
  BlockGraph graph = TinyGraph(kShape);  // q_dim 6, kv_dim 6, ffn 5, hidden 4
  EXPECT_EQ(WorkspaceBytes(graph, 10).value, 4u * 10 * (12 + 12 + 10) + 8u * 10 * 6 + 65536);
}

TEST(MemoryTest, HeadNormsLieWhereAnyUnitRuns) {
  BlockGraph graph = TinyGraph(kShape);
  graph.blocks[1].head_norm_bytes = Bytes{40};
  const PlanLimits limits;
  const BlockGraph plain = TinyGraph(kShape);
  const auto more = [&](const Plan& plan, size_t device) {
    return TableOf(graph, plan, limits).rows[device].weights.value -
           TableOf(plain, plan, limits).rows[device].weights.value;
  };
  EXPECT_EQ(more(testing::SinglePlan(graph), 0), 40u);
  // Both devices of a tensor split run heads, one of a layer split has the block.
  EXPECT_EQ(more(testing::TensorSplitPlan(graph, {1, 1}), 0), 40u);
  EXPECT_EQ(more(testing::TensorSplitPlan(graph, {1, 1}), 1), 40u);
  EXPECT_EQ(more(testing::LayerSplitPlan(graph, 2, 1), 0), 40u);
  EXPECT_EQ(more(testing::LayerSplitPlan(graph, 2, 1), 1), 0u);
  // Offload runs all on one device, and the host holds none.
  EXPECT_EQ(more(testing::OffloadPlan(graph), 0), 40u);
  EXPECT_EQ(more(testing::OffloadPlan(graph), 1), 0u);
}

TEST(MemoryTest, TiedWeightsCountOnceWhereUnitsOverlap) {
  testing::TinyShape shape = kShape;
  shape.tied = true;
  BlockGraph graph = TinyGraph(shape);
  PlanLimits limits;
  MemoryTable table = TableOf(graph, testing::SinglePlan(graph), limits);
  EXPECT_EQ(table.rows[0].weights.value, kVocabBytes + kAttentionBytes + kMlpBytes + 3 * kNorm);
  // Layer split over two devices needs the table on both: EMBED on d0, HEAD on d1.
  table = TableOf(graph, testing::LayerSplitPlan(graph, 2, 1), limits);
  EXPECT_EQ(table.rows[0].weights.value, kVocabBytes + kAttentionBytes + kNorm);
  EXPECT_EQ(table.rows[1].weights.value, kVocabBytes + kMlpBytes + 2 * kNorm);
}

TEST(MemoryTest, OverlappingPlacesCountOnce) {
  BlockGraph graph = TinyGraph(kShape);
  Plan plan = testing::SinglePlan(graph);
  Bytes before = TableOf(graph, plan, {}).rows[0].weights;
  plan.places.push_back(plan.places[1]);
  plan.places.back().units = {1, 3};
  EXPECT_EQ(TableOf(graph, plan, {}).rows[0].weights, before);
}

TEST(MemoryTest, TensorSplitSharesWeightsAndKv) {
  BlockGraph graph = TinyGraph(kShape);
  PlanLimits limits{.max_step_tokens = 8, .max_sequences = 1, .context = 64};
  MemoryTable table = TableOf(graph, testing::TensorSplitPlan(graph, {2, 1}), limits);
  // Units: vocabulary 2 of 4 (4 rows) and 2 (3 rows), heads 2 and 1, FFN 2 of 3 (4 columns) and 1.
  EXPECT_EQ(table.rows[0].weights.value, 2u * 4 * 16 + 2 * 128 + 4 * 48 + 3 * kNorm);
  EXPECT_EQ(table.rows[1].weights.value, 2u * 3 * 16 + 1 * 128 + 1 * 48 + 3 * kNorm);
  EXPECT_EQ(table.rows[0].kv.value, 64u * 2 * 8);
  EXPECT_EQ(table.rows[1].kv.value, 64u * 1 * 8);
}

TEST(MemoryTest, OffloadedWeightsAreTheHosts) {
  BlockGraph graph = TinyGraph(kShape);
  MemoryTable table = TableOf(graph, testing::OffloadPlan(graph), {});
  EXPECT_EQ(table.rows[0].weights.value, 3 * kNorm);
  EXPECT_EQ(table.rows[0].slots.value, 2 * kAttentionBytes);
  EXPECT_EQ(table.rows[1].weights.value, 2 * kVocabBytes + kAttentionBytes + kMlpBytes);
  EXPECT_EQ(table.rows[1].total().value, kSelfTestBytes) << "no kernel runs there";
}

TEST(MemoryTest, EveryGroupOfSequencesHasRoomForAllPages) {
  BlockGraph graph = TinyGraph(kShape);
  // Five sequences of 64 tokens: slots 0, 2, 4 run on d0 and 1, 3 on d1, from one set of pages.
  PlanLimits limits{.max_step_tokens = 8, .max_sequences = 5, .context = 320};
  MemoryTable table = TableOf(graph, testing::WeightGatherPlan(graph, 2), limits);
  EXPECT_EQ(table.rows[0].kv.value, 5u * 64 * 3 * 8);
  EXPECT_EQ(table.rows[1].kv.value, 5u * 64 * 3 * 8);
}

TEST(MemoryTest, AFetchOfPartOfAShardHasACopyOfItsOwn) {
  BlockGraph graph = TinyGraph(kShape);
  Plan plan = testing::WeightGatherPlan(graph, 2);
  const Bytes before = TableOf(graph, plan, {}).rows[0].weights;
  // d0 holds all of the MLP, d1 goes on fetching its own part of it from there.
  const uint32_t mlp = 2;
  for (Place& place : plan.places) {
    if (place.block.value == mlp && place.device.value == 0) place.units = {0, 3};
  }
  const VerifyResult result = VerifyPlan(plan, graph, TestRig(2), {});
  ASSERT_TRUE(result.ok()) << result.refusal->message;
  EXPECT_GT(result.memory.rows[0].weights.value, before.value + kMlpBytes / 3);
}

TEST(MemoryTest, KvMovedIsHeldAtBothEnds) {
  BlockGraph graph = TinyGraph(kShape);
  PlanLimits limits{.max_step_tokens = 8, .max_sequences = 1, .context = 64};
  MemoryTable table = TableOf(graph, testing::DisaggregatePlan(graph), limits);
  EXPECT_EQ(table.rows[0].kv.value, 64u * 3 * 8);
  EXPECT_EQ(table.rows[1].kv.value, 64u * 3 * 8);
}

TEST(MemoryTest, TokenShardsTakeTheirRowsOnly) {
  BlockGraph graph = TinyGraph(kShape);
  ValueInfo shard;
  shard.shards = 3;
  shard.shard = 2;
  EXPECT_EQ(ValueBytes(graph, shard, 8, 1).value, 3u * 16);  // rows 5, 6, 7
  shard.shard = 0;
  EXPECT_EQ(ValueBytes(graph, shard, 8, 1).value, 2u * 16);
  ValueInfo logits;
  logits.meaning = Meaning::kLogits;
  logits.block = graph.head();
  logits.units = {2, 4};
  EXPECT_EQ(ValueBytes(graph, logits, 8, 2).value, 2u * 3 * 4);
}

TEST(MemoryTest, RefusalNamesDeviceMissingBytesAndBlock) {
  BlockGraph graph = TinyGraph(kShape);
  PlanLimits limits{.max_step_tokens = 8, .max_sequences = 1, .context = 64};
  Plan plan = testing::LayerSplitPlan(graph, 2, 1);
  Rig rig = TestRig(2);
  VerifyResult result = VerifyPlan(plan, graph, rig, limits);
  ASSERT_TRUE(result.ok());
  rig.devices[0].memory = result.memory.rows[0].total();
  EXPECT_TRUE(VerifyPlan(plan, graph, rig, limits).ok());
  rig.devices[0].memory.value -= 1;
  result = VerifyPlan(plan, graph, rig, limits);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.refusal->rule, "memory");
  EXPECT_THAT(result.refusal->message, HasSubstr("d0 lacks 1 B: it needs "));
  EXPECT_THAT(result.refusal->message,
              HasSubstr("b1 (ATTENTION of layer 0) is the first block that does not fit"));
  EXPECT_FALSE(result.memory.rows.empty());
  rig.devices[0].memory.value = 1000;
  result = VerifyPlan(plan, graph, rig, limits);
  EXPECT_THAT(result.refusal->message,
              HasSubstr("its slots, activations, workspace and links alone"));
}

// Two GPUs that are here.
Rig GpusHere(LinkKind kind) {
  Rig rig = TestRig(2);
  rig.link.kind = kind;
  rig.gpus = {0, 1};
  return rig;
}

TEST(MemoryTest, WhatTransportsBetweenGpusTakeIsAColumn) {
  const BlockGraph graph = TinyGraph(kShape);
  Plan plan = testing::TensorSplitPlan(graph, {1, 1});
  const auto links = [&](const Rig& rig, size_t row) {
    return VerifyOrFail(plan, graph, rig, {}).memory.rows[row].links;
  };
  const LinkMemory p2p = LinkMemoryOf(PathKind::kP2p, 2);
  const LinkMemory staged = LinkMemoryOf(PathKind::kHostStaged, 2);
  EXPECT_GT(p2p.card.value, 2u * (kPeerWordsSlots + kPeerBlocksSlots));
  EXPECT_GT(staged.host.value, 2 * p2p.card.value) << "both directions, and what is staged";
  for (size_t d : {0, 1}) {
    EXPECT_EQ(links(GpusHere(LinkKind::kNvlink), d), p2p.card);
    EXPECT_EQ(links(GpusHere(LinkKind::kHostStaged), d), staged.card);
    EXPECT_EQ(links(TestRig(2), d), Bytes{}) << "no GPU is here";
  }
  EXPECT_EQ(links(GpusHere(LinkKind::kNvlink), 2), p2p.host);
  EXPECT_EQ(links(GpusHere(LinkKind::kHostStaged), 2), staged.host);
  // Each path that is used has its own.
  bool staged_too = false;
  for (Op& op : plan.programs[0].ops) {
    if (op.kind != OpKind::kAllReduce || staged_too) continue;
    op.path = PathKind::kHostStaged;
    staged_too = true;
  }
  ASSERT_TRUE(staged_too);
  EXPECT_EQ(links(GpusHere(LinkKind::kNvlink), 0), p2p.card + staged.card);
  for (Program& program : plan.programs) {
    for (Op& op : program.ops) op.path = PathKind::kCopy;
  }
  EXPECT_EQ(links(GpusHere(LinkKind::kNvlink), 0), Bytes{}) << "copy engines need none";
  plan = testing::SinglePlan(graph);
  EXPECT_EQ(links(GpusHere(LinkKind::kNvlink), 0), Bytes{}) << "nothing moves";
}

TEST(MemoryTest, TransportsGrowWithTheirCards) {
  EXPECT_EQ(LinkMemoryOf(PathKind::kP2p, 1).card, Bytes{});
  EXPECT_EQ(LinkMemoryOf(PathKind::kNccl, 4).card, Bytes{});
  const auto card = [](uint32_t n) { return LinkMemoryOf(PathKind::kP2p, n).card; };
  EXPECT_EQ(card(4) - card(3), card(3) - card(2)) << "a pair more for each card";
  const auto host = [](uint32_t n) { return LinkMemoryOf(PathKind::kHostStaged, n).host.value; };
  EXPECT_EQ(host(4) - 4 * kPeerFailure, 6 * (host(2) - 2 * kPeerFailure)) << "12 directions for 2";
}

TEST(MemoryTest, APlanWhoseLinksDoNotFitIsRefused) {
  const BlockGraph graph = TinyGraph(kShape);
  const Plan plan = testing::TensorSplitPlan(graph, {1, 1});
  Rig rig = GpusHere(LinkKind::kNvlink);
  const MemoryRow row = VerifyOrFail(plan, graph, rig, {}).memory.rows[0];
  for (DeviceSpec& device : rig.devices) device.memory = row.total();
  EXPECT_TRUE(VerifyPlan(plan, graph, rig, {}).ok());
  rig.devices[0].memory = row.total() - Bytes{row.links.value / 2};
  const VerifyResult result = VerifyPlan(plan, graph, rig, {});
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.refusal->message, HasSubstr("links " + HumanBytes(row.links)));
}

TEST(MemoryTest, TheHostsMemoryCountsToo) {
  BlockGraph graph = TinyGraph(kShape);
  Rig rig = TestRig(1);
  const Plan plan = testing::OffloadPlan(graph);
  rig.host_memory = TableOf(graph, plan, {}).rows[1].workspace + Bytes{kVocabBytes + 10};
  VerifyResult result = VerifyPlan(plan, graph, rig, {});
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.refusal->message, HasSubstr("host lacks"));
  EXPECT_THAT(result.refusal->message, HasSubstr("b1 (ATTENTION of layer 0)"));
}

}  // namespace
}  // namespace tandem
