// An engine without a model: it says back the prompt, token by token, or what a script says. Its
// tokens are bytes, so tests can read what happens at the level of single tokens. Steps take as
// long as asked, which makes streams that are open as long as a test needs.
//
// Submit, Cancel and the knobs: any thread. Step: the EngineThread's.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/model/tokenizer.h"
#include "engine/run/engine.h"

namespace tandem::testing {

// Ids 0 to 255 are bytes; 256 is the end, spelled "<|end|>"; 257 begins a chat turn, "<|start|>".
class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr int32_t kEnd = 256;
  static constexpr int32_t kStart = 257;

  uint32_t vocab_size() const override { return 258; }
  std::vector<int32_t> Encode(std::string_view text, const EncodeOptions& options) const override;
  std::string TokenBytes(int32_t id, bool render_special) const override;
  std::string TokenText(int32_t id) const override { return TokenBytes(id, true); }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::optional<int32_t> eos() const override { return kEnd; }
  bool IsEndOfGeneration(int32_t id) const override { return id == kEnd; }
  bool IsSpecial(int32_t id) const override { return id >= 256; }
  bool adds_bos() const override { return false; }
};

class FakeModel final : public Model {
 public:
  explicit FakeModel(bool with_tokenizer = true);

  const ModelConfig& config() const override { return config_; }
  const std::vector<LayerWeights>& layers() const override { return layers_; }
  const TensorView& token_embedding() const override { return tensor_; }
  const TensorView& output_norm() const override { return tensor_; }
  const TensorView& output() const override { return tensor_; }
  const BlockGraph& blocks() const override { return blocks_; }
  bool has_data() const override { return true; }
  const Tokenizer* tokenizer() const override { return with_tokenizer_ ? &tokenizer_ : nullptr; }
  const std::string& chat_template() const override { return chat_template_; }
  const std::string& source() const override { return source_; }
  Bytes weight_bytes() const override { return Bytes{1234}; }
  const std::string& weights_hash() const override { return source_; }

 private:
  ModelConfig config_;
  std::vector<LayerWeights> layers_;
  TensorView tensor_;
  BlockGraph blocks_;
  bool with_tokenizer_;
  ByteTokenizer tokenizer_;
  std::string chat_template_;
  std::string source_ = "/models/fake.gguf";
};

class FakeEngine final : public Engine {
 public:
  // `slot_context` tokens a sequence, `slots` at once, `max_queue` waiting.
  explicit FakeEngine(uint32_t slot_context = 256, uint32_t slots = 64, uint32_t max_queue = 64,
                      bool with_tokenizer = true);

  // What a request is answered with; empty: its own prompt, over and over.
  std::function<std::vector<int32_t>(const Request&)> script;
  std::atomic<int> step_us{0};            // how long a step takes
  std::atomic<int64_t> fail_at_step{-1};  // that step fails every request with kError
  std::atomic<bool> nan_logprobs{false};

  const EngineOptions& options() const override { return options_; }
  const EngineInfo& info() const override { return info_; }
  const Model& model() const override { return *options_.model; }
  const Clock& clock() const override { return clock_; }
  EngineCounters counters() const override;
  RequestId Submit(Request request, std::shared_ptr<RequestListener> listener) override;
  void Cancel(RequestId id) override;
  void CancelAll() override;
  bool HasWork() const override;
  Nanos NextStepTime() const override { return clock_.Now(); }
  void AdvanceTo(Nanos) override {}
  bool Step() override;
  void AddObserver(StepObserver* observer) override { observers_.push_back(observer); }
  void RemoveObserver(StepObserver* observer) override { std::erase(observers_, observer); }

  EngineInfo& mutable_info() { return info_; }
  // Requests as they were submitted.
  std::vector<Request> submitted() const;
  // Waits until that many requests are running or waiting; false when they are not in time.
  bool WaitForOpen(uint32_t count, std::chrono::milliseconds timeout = std::chrono::seconds(10));
  // Waits until that many were cancelled.
  bool WaitForCancelled(uint64_t count,
                        std::chrono::milliseconds timeout = std::chrono::seconds(10));

 private:
  struct Active {
    RequestId id = 0;
    Request request;
    std::shared_ptr<RequestListener> listener;
    std::vector<int32_t> answer;
    uint32_t generated = 0;
    bool prefilled = false;
    bool cancelled = false;
    RequestStats stats;
  };

  // One step of one request; whether it ended.
  bool Advance(Active& active);
  void End(Active& active, FinishReason reason, const std::string& error);
  void Report(bool prefill, uint32_t rows);

  EngineOptions options_;
  EngineInfo info_;
  WallClock clock_;
  std::vector<StepObserver*> observers_;
  uint32_t slot_context_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Active>> open_;  // guarded by mutex_, oldest first
  std::vector<Request> submitted_;
  EngineCounters counters_;
  RequestId next_id_ = 1;
  std::atomic<int64_t> steps_{0};
};

}  // namespace tandem::testing
