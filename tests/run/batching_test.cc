// The pieces below the engine: pages, value layouts, microbatches, and the scheduler's rows.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "engine/device/cpu/cpu_device.h"
#include "engine/plan/value_layout.h"
#include "engine/run/microbatch.h"
#include "engine/run/scheduler.h"
#include "tests/run/engine_fixture.h"

namespace tandem {
namespace {

TEST(PageAllocatorTest, HandsOutTheLowestAndTakesBack) {
  PageAllocator pages(5);
  std::vector<int32_t> a, b;
  ASSERT_TRUE(pages.Take(2, a));
  ASSERT_TRUE(pages.Take(2, b));
  EXPECT_EQ(a, (std::vector<int32_t>{0, 1}));
  EXPECT_FALSE(pages.Take(2, a)) << "one is left";
  EXPECT_EQ(a.size(), 2u) << "a refusal takes nothing";
  pages.Give(a);
  EXPECT_TRUE(a.empty());
  ASSERT_TRUE(pages.Take(3, a));
  EXPECT_EQ(a, (std::vector<int32_t>{0, 1, 4}));
  EXPECT_EQ(pages.used(), 5u);
}

TEST(KvCacheTest, CutsPiecesWhereRunsDo) {
  const auto model = testing::TinyModel();
  auto pool = std::make_shared<ThreadPool>(ThreadPoolOptions{1});
  std::vector<std::unique_ptr<Device>> devices;
  for (int d = 0; d < 2; ++d) {
    devices.push_back(std::make_unique<CpuDevice>(DeviceId{d}, Bytes{}, pool));
  }
  const BlockId b1{1}, b3{3};
  const std::vector<KvDemand> demands{{DeviceId{0}, b1, {0, 3}},
                                      {DeviceId{0}, b1, {0, 1}},
                                      {DeviceId{1}, b1, {2, 3}},
                                      {DeviceId{1}, b3, {0, 3}}};
  const KvCache cache(model->blocks(), demands, 4, devices);
  const auto pieces = cache.Pieces(DeviceId{0}, b1, {0, 3});
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[0].units, (UnitRange{0, 1}));
  EXPECT_EQ(pieces[1].units, (UnitRange{1, 3}));
  EXPECT_EQ(pieces[1].view.kv_heads, 2u);
  EXPECT_EQ(cache.Pieces(DeviceId{0}, b1, {1, 3}).size(), 1u);
  EXPECT_TRUE(cache.Pieces(DeviceId{0}, b3, {0, 3}).empty());
  // Four pages of 64 tokens, 128 bytes of f16 keys and values a head and token.
  EXPECT_EQ(devices[0]->ledger().used(MemoryUse::kKv), Bytes{4 * 64 * 128 * 3});
  EXPECT_EQ(devices[1]->ledger().used(MemoryUse::kKv), Bytes{4 * 64 * 128 * 4});
}

TEST(ValueLayoutTest, LivesThatOverlapNeverShareBytes) {
  std::mt19937 random(3);
  for (int round = 0; round < 50; ++round) {
    std::vector<LaidValue> values;
    for (uint32_t i = 0; i < 60; ++i) {
      values.push_back({.device = static_cast<uint32_t>(random() % 2),
                        .bytes = random() % 5 == 0 ? 0 : random() % 1000,
                        .def_op = i / 2,
                        .last_use = i / 2 + static_cast<uint32_t>(random() % 6)});
    }
    ValueLayout layout;
    LayOutValues(values, 2, layout);
    for (size_t a = 0; a < values.size(); ++a) {
      EXPECT_EQ(layout.offsets[a] % kArenaAlign, 0u);
      EXPECT_LE(layout.offsets[a] + values[a].bytes, layout.peak[values[a].device]);
      for (size_t b = a + 1; b < values.size(); ++b) {
        const bool together = values[a].device == values[b].device && values[a].bytes > 0 &&
                              values[b].bytes > 0 && values[a].def_op <= values[b].last_use &&
                              values[b].def_op <= values[a].last_use;
        if (!together) continue;
        EXPECT_TRUE(layout.offsets[a] + values[a].bytes <= layout.offsets[b] ||
                    layout.offsets[b] + values[b].bytes <= layout.offsets[a])
            << a << " and " << b;
      }
    }
  }
}

TEST(ValueLayoutTest, AChainOfEqualsTakesNoMoreThanItsLives) {
  std::vector<LaidValue> values;  // each lives until the next but one is made
  for (uint32_t i = 0; i < 20; ++i) {
    values.push_back({.bytes = 640, .def_op = i, .last_use = i + 2});
  }
  ValueLayout layout;
  LayOutValues(values, 1, layout);
  EXPECT_EQ(layout.peak[0], 3 * 640u);
}

struct Rows {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<int32_t> pages{0, 1, 2};
  StepBatch batch;
  void Add(uint32_t slot, uint32_t start, uint32_t n, uint32_t sampled) {
    tokens.reserve(16);
    auto& ids = tokens.emplace_back();
    for (uint32_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>(100 * slot + start + i));
    batch.sequences.push_back({slot, start, ids, sampled, pages.data()});
  }
};

TEST(MicrobatchTest, ChunksAreCutAtTheFloors) {
  Rows rows;
  rows.Add(0, 10, 5, 0);
  rows.Add(1, 0, 6, 1);
  Program program;
  program.microbatches = 3;
  program.microbatch_kind = MicrobatchKind::kByChunk;
  std::vector<Microbatch> cut;
  CutMicrobatches(program, rows.batch, cut);
  ASSERT_EQ(cut.size(), 3u);
  EXPECT_EQ(cut[0].ids, (std::vector<int32_t>{10, 11, 12}));  // 11 * 1 / 3
  EXPECT_EQ(cut[1].ids, (std::vector<int32_t>{13, 14, 100, 101}));
  EXPECT_EQ(cut[2].ids, (std::vector<int32_t>{102, 103, 104, 105}));
  ASSERT_EQ(cut[1].sequences.size(), 2u);
  EXPECT_EQ(cut[1].sequences[0].start, 13u);
  EXPECT_EQ(cut[1].sequences[1].first_row, 2u);
  EXPECT_EQ(cut[2].sequences[0].start, 2u);
  EXPECT_TRUE(cut[1].sampled.empty());
  ASSERT_EQ(cut[2].sampled.size(), 1u);
  EXPECT_EQ(cut[2].sampled[0].sequence, 1u);
  EXPECT_EQ(cut[2].sampled[0].row, 5u);
  EXPECT_EQ(cut[2].sampled_spans[0].first, 3u);
  // Positions 13, 14 see 14 and 15; positions 0, 1 see 1 and 2.
  EXPECT_EQ(cut[1].shape.attended, 14u + 15u + 1u + 2u);
  EXPECT_EQ(cut[1].shape.kv_tokens, 15u + 2u);
}

TEST(MicrobatchTest, SequencesGoBySlotAndSampledRowsFormSpans) {
  Rows rows;
  rows.Add(0, 3, 1, 1);
  rows.Add(2, 7, 1, 1);
  rows.Add(3, 9, 4, 2);
  Program program;
  program.microbatches = 2;
  program.microbatch_kind = MicrobatchKind::kBySequence;
  std::vector<Microbatch> cut;
  CutMicrobatches(program, rows.batch, cut);
  EXPECT_EQ(cut[0].rows(), 2u);
  EXPECT_EQ(cut[1].rows(), 4u);
  ASSERT_EQ(cut[0].sampled_spans.size(), 1u) << "neighbours join";
  EXPECT_EQ(cut[0].sampled_spans[0].count, 2u);
  ASSERT_EQ(cut[1].sampled_spans.size(), 1u);
  EXPECT_EQ(cut[1].sampled_spans[0].first, 2u);
}

TEST(MicrobatchTest, MatchesTheShapesThatPricesAreMadeOf) {
  for (MicrobatchKind kind : {MicrobatchKind::kByChunk, MicrobatchKind::kBySequence}) {
    Program program;
    program.microbatches = 3;
    program.microbatch_kind = kind;
    Rows prefill;
    prefill.Add(0, 0, 50, 1);
    std::vector<Microbatch> cut;
    CutMicrobatches(program, prefill.batch, cut);
    const StepShape want = PrefillShape(program, 50);
    Rows decode;
    for (uint32_t slot = 0; slot < 5; ++slot) decode.Add(slot, 20, 1, 1);
    std::vector<Microbatch> cut_decode;
    CutMicrobatches(program, decode.batch, cut_decode);
    const StepShape want_decode = DecodeShape(program, 5, 20);
    for (size_t m = 0; m < 3; ++m) {
      for (const auto& [got, expected] :
           {std::make_pair(cut[m].shape, want.microbatches[m]),
            std::make_pair(cut_decode[m].shape, want_decode.microbatches[m])}) {
        EXPECT_EQ(got.rows, expected.rows);
        EXPECT_EQ(got.sampled, expected.sampled);
        EXPECT_EQ(got.attended, expected.attended);
        EXPECT_EQ(got.kv_tokens, expected.kv_tokens);
      }
    }
  }
}

class SchedulerTest : public ::testing::Test {
 protected:
  void Make(uint32_t lanes, uint32_t slots, uint32_t pages) {
    SchedulerLimits limits;
    limits.plan = PlanLimits{.max_step_tokens = 32, .max_sequences = slots, .context = 1000};
    limits.n_lanes = lanes;
    limits.pages_per_lane = pages;
    limits.max_scored_rows.assign(lanes, 8);
    scheduler = std::make_unique<Scheduler>(limits);
  }
  void Queue(uint32_t prompt, uint32_t max_tokens, bool scored = false) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = ++last_id;
    sequence->context.assign(prompt, 1);
    sequence->n_prompt = prompt;
    sequence->max_tokens = max_tokens;
    sequence->request.prompt_logits = scored;
    scheduler->Enqueue(std::move(sequence));
  }
  // Builds and "runs" the lane's next step; rows by sequence id.
  std::vector<std::pair<RequestId, uint32_t>> Step(uint32_t lane = 0) {
    phase = scheduler->NextPhase(lane);
    std::vector<std::pair<RequestId, uint32_t>> rows;
    if (!phase) return rows;
    std::vector<Sequence*> members;
    scheduler->BuildBatch(lane, *phase, batch, members);
    for (Sequence* member : members) {
      rows.emplace_back(member->id, member->step_rows);
      member->n_stored += member->step_rows;
      if (!member->InPrefill()) member->context.push_back(2);
    }
    return rows;
  }
  using Got = std::vector<std::pair<RequestId, uint32_t>>;

  std::unique_ptr<Scheduler> scheduler;
  StepBatch batch;
  std::optional<ProgramKind> phase;
  RequestId last_id = 0;
};

TEST_F(SchedulerTest, ChunksPromptsOldestFirstAndAlternates) {
  Make(1, 4, 100);
  Queue(40, 4);
  Queue(50, 4);
  scheduler->Admit(Nanos{0});
  EXPECT_EQ(Step(), (Got{{1, 32}}));
  EXPECT_EQ(batch.sequences[0].sampled, 0u);
  EXPECT_EQ(Step(), (Got{{1, 8}, {2, 24}}));
  EXPECT_EQ(batch.sequences[0].sampled, 1u);
  EXPECT_EQ(Step(), (Got{{1, 1}}));
  EXPECT_EQ(phase, ProgramKind::kDecode);
  EXPECT_EQ(Step(), (Got{{2, 26}}));
  EXPECT_EQ(Step(), (Got{{1, 1}, {2, 1}}));
  EXPECT_EQ(Step(), (Got{{1, 1}, {2, 1}}));
}

TEST_F(SchedulerTest, NobodyOvertakesARequestThatDoesNotFit) {
  Make(1, 4, 4);
  Queue(100, 100);  // 4 pages
  Queue(200, 50);   // 4 pages
  Queue(5, 5);      // 1 page
  scheduler->Admit(Nanos{0});
  EXPECT_EQ(scheduler->running(), 1u);
  EXPECT_EQ(scheduler->waiting(), 2u);
  scheduler->Release(scheduler->Find(1));
  EXPECT_EQ(scheduler->pages_used(), 0u);
  scheduler->Admit(Nanos{0});
  EXPECT_EQ(scheduler->running(), 1u);
  EXPECT_NE(scheduler->Find(2), nullptr);
}

TEST_F(SchedulerTest, SpreadsOverLanesAndReusesTheLowestSlot) {
  Make(2, 4, 100);
  for (int i = 0; i < 5; ++i) Queue(4, 4);
  scheduler->Admit(Nanos{0});
  EXPECT_EQ(scheduler->running(), 4u) << "slots are counted over all lanes";
  const auto at = [&](RequestId id) {
    const Sequence* s = scheduler->Find(id);
    return std::make_pair(s->lane, s->slot);
  };
  EXPECT_EQ(at(1), (std::make_pair(0u, 0u)));
  EXPECT_EQ(at(2), (std::make_pair(1u, 0u)));
  EXPECT_EQ(at(3), (std::make_pair(0u, 1u)));
  scheduler->Release(scheduler->Find(1));
  scheduler->Admit(Nanos{0});
  EXPECT_EQ(at(5), (std::make_pair(0u, 0u)));
}

TEST_F(SchedulerTest, ScoredPromptsHaveStepsOfTheirOwn) {
  Make(1, 4, 100);
  Queue(4, 4);
  Queue(20, 4, /*scored=*/true);
  Queue(4, 4);
  scheduler->Admit(Nanos{0});
  EXPECT_EQ(Step(), (Got{{1, 4}}));
  Step();  // decode
  EXPECT_EQ(Step(), (Got{{2, 8}}));
  EXPECT_EQ(batch.sequences[0].sampled, 8u);
}

}  // namespace
}  // namespace tandem
