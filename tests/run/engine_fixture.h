// Tiny models, plans and requests for the engine's tests.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/synthetic.h"
#include "engine/model/tokenizer.h"
#include "engine/run/engine.h"
#include "tests/support/plan_builders.h"

namespace tandem::testing {

// Three KV heads, five MLP units and a short last vocabulary unit: nothing divides evenly by two.
inline ModelConfig TinyConfig() {
  ModelConfig config;
  config.name = "tiny";
  config.n_layers = 2;
  config.hidden = 96;
  config.n_heads = 6;
  config.n_kv_heads = 3;
  config.head_dim = 32;
  config.ffn = 160;
  config.vocab = 200;
  config.context = 512;
  config.rope_dim = 32;
  config.tied_embedding = true;
  return config;
}

// The same for types whose blocks are longer: three KV heads of 256 columns, three MLP units.
inline ModelConfig TinyConfigFor(DType type) {
  ModelConfig config = TinyConfig();
  if (Traits(type).block_elems == 256) {
    config.hidden = 256;
    config.ffn = 768;
    config.head_dim = 128;
  }
  return config;
}

inline std::shared_ptr<const Model> TinyModel(DType type = DType::kQ4_1, bool tied = true,
                                              uint64_t seed = 7) {
  SyntheticSpec spec;
  spec.config = TinyConfigFor(type);
  spec.config.tied_embedding = tied;
  spec.type = type;
  spec.embedding_type = type == DType::kF32 ? DType::kF32 : DType::kQ8_0;
  spec.seed = seed;
  return MakeSyntheticModel(spec);
}

// Keeps everything an engine tells of one request.
class Recorder : public RequestListener {
 public:
  void OnToken(const TokenEvent& event) override {
    EXPECT_FALSE(done) << "a token after the end";
    EXPECT_EQ(event.index, ids.size());
    ids.push_back(event.id);
    events.push_back(event);
  }
  void OnPromptLogits(uint32_t first, const std::vector<float>& logits) override {
    EXPECT_EQ(first * vocab, prompt_logits.size()) << "positions in order";
    prompt_logits.insert(prompt_logits.end(), logits.begin(), logits.end());
  }
  void OnDone(FinishReason why, const std::string& what, const RequestStats& s) override {
    EXPECT_FALSE(done) << "told of the end twice";
    done = true;
    reason = why;
    error = what;
    stats = s;
  }

  size_t vocab = TinyConfig().vocab;
  std::vector<int32_t> ids;
  std::vector<TokenEvent> events;
  std::vector<float> prompt_logits;
  bool done = false;
  FinishReason reason = FinishReason::kError;
  std::string error;
  RequestStats stats;
};

// Copies of what an observer may see only during the call.
class StepLog : public StepObserver {
 public:
  void OnStep(const StepReport& report) override {
    steps.push_back(report);
    hops.emplace_back(report.hops.begin(), report.hops.end());
    steps.back().hops = {};
  }
  std::vector<StepReport> steps;
  std::vector<std::vector<HopRow>> hops;
};

inline EngineOptions TinyOptions(std::shared_ptr<const Model> model, Plan plan) {
  EngineOptions options;
  options.rig = TestRig(plan.n_devices);
  options.model = std::move(model);
  options.plan = std::move(plan);
  options.limits = PlanLimits{.max_step_tokens = 32, .max_sequences = 4, .context = 4 * 128};
  options.threads = 1;
  return options;
}

inline std::vector<int32_t> Prompt(size_t n, int32_t seed = 1) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < n; ++i) {
    ids.push_back(static_cast<int32_t>((i * 37 + static_cast<size_t>(seed) * 11) % 200));
  }
  return ids;
}

inline Request MakeRequest(std::vector<int32_t> prompt, uint32_t max_tokens,
                           bool prompt_logits = false) {
  Request request;
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.prompt_logits = prompt_logits;
  return request;
}

inline void RunAll(Engine& engine) {
  while (engine.HasWork()) engine.Step();
}

// One request on an engine of its own.
inline std::shared_ptr<Recorder> RunOne(EngineOptions options, Request request) {
  std::unique_ptr<Engine> engine = Engine::Create(std::move(options));
  auto recorder = std::make_shared<Recorder>();
  recorder->vocab = engine->model().config().vocab;
  engine->Submit(std::move(request), recorder);
  RunAll(*engine);
  EXPECT_TRUE(recorder->done);
  return recorder;
}

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

}  // namespace tandem::testing
