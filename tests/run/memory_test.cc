// The table of memory that the verifier shows and refuses by is a bound: whatever the engine holds,
// by device and use, stays within it, for every plan, plugin and workload.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "engine/base/error.h"
#include "engine/run/engine_impl.h"
#include "kernels/forwarding_ops.h"
#include "tests/run/engine_fixture.h"
#include "tests/run/plugin_options.h"

namespace tandem {
namespace {

using testing::MakeRequest;
using testing::Prompt;
using testing::Recorder;
using testing::RunAll;
using testing::TinyModel;
using testing::TinyOptions;

// Prompts of uneven lengths that come and go in uneven company, one of them scored.
void RunWorkload(Engine& engine) {
  for (int32_t i = 0; i < 9; ++i) {
    engine.Submit(MakeRequest(Prompt(static_cast<size_t>(1 + 11 * i), i),
                              static_cast<uint32_t>(1 + 3 * i), i == 4),
                  std::make_shared<Recorder>());
  }
  RunAll(engine);
}

void ExpectWithinTable(EngineImpl& engine, const std::string& what) {
  const MemoryTable& table = engine.info().planned.verified.memory;
  const size_t n_devices = engine.info().planned.plan.n_devices;
  ASSERT_EQ(table.rows.size(), n_devices + 1) << what;
  for (size_t i = 0; i < table.rows.size(); ++i) {
    const MemoryRow& row = table.rows[i];
    const MemoryLedger& ledger = (i < n_devices ? engine.device(i) : engine.host()).ledger();
    const auto expect = [&](MemoryUse use, Bytes bound) {
      EXPECT_LE(ledger.used(use).value, bound.value)
          << what << ": " << ToString(use) << " of " << (i < n_devices ? "device " : "host ") << i;
    };
    expect(MemoryUse::kKv, row.kv);
    expect(MemoryUse::kActivations, row.activations);
    // The table counts the padding of packed weights as workspace, and the ledger what links take.
    const Bytes room = row.workspace + row.links;
    const Bytes padding = room - ledger.used(MemoryUse::kWorkspace);
    EXPECT_LE(ledger.used(MemoryUse::kWorkspace).value, room.value) << what;
    expect(MemoryUse::kWeights, row.weights + padding);
    expect(MemoryUse::kSlots, row.slots + padding);
    EXPECT_LE(ledger.peak().value, row.total().value) << what << ": peak, row " << i;
  }
}

void TryPlan(const std::shared_ptr<const Model>& model, const Plan& plan, const std::string& what) {
  EngineImpl engine(TinyOptions(model, plan));
  ExpectWithinTable(engine, what + ", loaded");
  RunWorkload(engine);
  ExpectWithinTable(engine, what + ", after its work");
}

struct Case {
  std::string name;
  std::shared_ptr<const Model> model;
};

// Beside the plain ones: biases of q, k and v, norms of heads, an output of its own, and blocks of
// 256 whose units are larger.
std::vector<Case> Cases() {
  const std::string shape = "h=96,l=2,heads=6,kv=3,hd=32,ffn=160,vocab=200,ctx=512,seed=7";
  return {{"llama q4_1", TinyModel(DType::kQ4_1)},
          {"llama q4_k", TinyModel(DType::kQ4_K)},
          {"qwen2 q5_1", MakeSyntheticModel(ParseSyntheticSpec(shape + ",type=q5_1,arch=qwen2"))},
          {"qwen3 q8_0",
           MakeSyntheticModel(ParseSyntheticSpec(shape + ",type=q8_0,arch=qwen3,tied=0"))}};
}

void TryPlans(const std::shared_ptr<const Model>& model, const std::string& name) {
  const BlockGraph& graph = model->blocks();
  for (uint32_t devices : {1u, 2u, 3u}) {
    const std::string on = " on " + std::to_string(devices) + ", " + name;
    TryPlan(model, testing::ReplicasPlan(graph, devices), "replicas" + on);
    TryPlan(model, testing::WeightGatherPlan(graph, devices), "weight gather" + on);
    for (uint32_t microbatches : {1u, 2u, 3u, 4u}) {
      TryPlan(model, testing::LayerSplitPlan(graph, devices, microbatches),
              "layer split" + on + " in " + std::to_string(microbatches));
    }
    if (devices == 1) continue;
    const std::vector<double> even(devices, 1.0);
    TryPlan(model, testing::TensorSplitPlan(graph, even), "tensor split" + on);
    TryPlan(model, testing::SequenceParallelPlan(graph, even), "sequence parallel" + on);
    TryPlan(model, testing::ReplicatedAttentionPlan(graph, devices, 2),
            "replicated attention" + on);
  }
  TryPlan(model, testing::SinglePlan(graph), "single, " + name);
  TryPlan(model, testing::OffloadPlan(graph), "offload, " + name);
  TryPlan(model, testing::DisaggregatePlan(graph), "disaggregate, " + name);
}

TEST(MemoryTest, NoPlanHoldsMoreThanItsTableSays) {
  for (const Case& one : Cases()) TryPlans(one.model, one.name);
}

void TryPlugin(const Case& one, const std::string& plugin, uint32_t devices, uint32_t slots) {
  EngineOptions options;
  options.model = one.model;
  options.rig = testing::TestRig(devices);
  options.plugin = plugin;
  options.planner = testing::ShippedPlugins();
  options.limits = {.max_step_tokens = 32, .max_sequences = slots, .context = slots * 160};
  options.threads = 1;
  std::unique_ptr<EngineImpl> engine;
  try {
    engine = std::make_unique<EngineImpl>(options);
  } catch (const Error& error) {
    EXPECT_EQ(devices, 1u) << plugin << " wants two devices at most: " << error.what();
    return;
  }
  RunWorkload(*engine);
  ExpectWithinTable(*engine, plugin + " on " + std::to_string(devices) + " with " +
                                 std::to_string(slots) + " slots, " + one.name);
}

TEST(MemoryTest, NoPluginHoldsMoreThanItsTableSays) {
  std::vector<Case> cases = Cases();
  cases.push_back({"llama f32", TinyModel(DType::kF32)});
  for (const Case& one : cases) {
    for (const char* plugin : {TANDEM_PLUGIN_NAMES}) {
      for (uint32_t devices : {1u, 2u, 3u}) {
        for (uint32_t slots : {1u, 5u}) TryPlugin(one, plugin, devices, slots);
      }
    }
  }
}

// Spoils the room that attention is given before it works there, and keeps the smallest.
class SpoilsRooms final : public ForwardingOps {
 public:
  SpoilsRooms(std::unique_ptr<Ops> inner, uint64_t* smallest)
      : ForwardingOps(std::move(inner)), smallest_(smallest) {}
  void Attention(const float* q, uint32_t q_heads, uint32_t window,
                 std::span<const SequenceRows> sequences, const KvView& kv, float* out) override {
    std::memset(kv.room, 0xff, kv.room_bytes);
    *smallest_ = std::min(*smallest_, kv.room_bytes);
    Inner().Attention(q, q_heads, window, sequences, kv, out);
  }

 private:
  uint64_t* smallest_;
};

TEST(MemoryTest, AttentionWorksInWhatAStepLeavesOfItsScratch) {
  const auto model = TinyModel();
  for (const Plan& plan : {testing::SinglePlan(model->blocks()),
                           testing::ReplicatedAttentionPlan(model->blocks(), 2, 2)}) {
    uint64_t smallest = ~uint64_t{0};
    EngineOptions options = TinyOptions(model, plan);
    const auto request = MakeRequest(Prompt(70), 5, /*prompt_logits=*/true);
    const auto want = testing::RunOne(options, request);
    options.hooks.wrap_ops = [&](std::unique_ptr<Ops> ops) {
      return std::make_unique<SpoilsRooms>(std::move(ops), &smallest);
    };
    const auto got = testing::RunOne(options, request);
    EXPECT_TRUE(testing::SameBits(got->prompt_logits, want->prompt_logits)) << plan.plugin;
    EXPECT_EQ(got->ids, want->ids) << plan.plugin;
    // Gate, up and prepared rows are not there yet.
    const ModelConfig& config = model->config();
    EXPECT_GE(smallest, 32 * sizeof(float) * 2 * config.ffn) << plan.plugin;
  }
}

}  // namespace
}  // namespace tandem
