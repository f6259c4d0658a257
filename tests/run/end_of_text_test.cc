// When an answer ends by itself: end-of-generation tokens, min_tokens, ignore_eos.
#include <gtest/gtest.h>

#include "tests/run/engine_fixture.h"

namespace tandem {
namespace {

using testing::MakeRequest;
using testing::Prompt;

// A vocabulary in which one token ends the answer.
class EndingTokenizer final : public Tokenizer {
 public:
  explicit EndingTokenizer(int32_t end) : end_(end) {}
  uint32_t vocab_size() const override { return 200; }
  std::vector<int32_t> Encode(std::string_view, const EncodeOptions&) const override { return {}; }
  std::string TokenBytes(int32_t, bool) const override { return "x"; }
  std::string TokenText(int32_t) const override { return "x"; }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::optional<int32_t> eos() const override { return end_; }
  bool IsEndOfGeneration(int32_t id) const override { return id == end_; }
  bool IsSpecial(int32_t id) const override { return id == end_; }
  bool adds_bos() const override { return false; }

 private:
  int32_t end_;
};

// A model with a tokenizer put on.
class TokenizedModel final : public Model {
 public:
  TokenizedModel(std::shared_ptr<const Model> inner, int32_t end)
      : inner_(std::move(inner)), tokenizer_(end) {}
  const ModelConfig& config() const override { return inner_->config(); }
  const std::vector<LayerWeights>& layers() const override { return inner_->layers(); }
  const TensorView& token_embedding() const override { return inner_->token_embedding(); }
  const TensorView& output_norm() const override { return inner_->output_norm(); }
  const TensorView& output() const override { return inner_->output(); }
  const BlockGraph& blocks() const override { return inner_->blocks(); }
  bool has_data() const override { return true; }
  const Tokenizer* tokenizer() const override { return &tokenizer_; }
  const std::string& chat_template() const override { return inner_->chat_template(); }
  const std::string& source() const override { return inner_->source(); }
  Bytes weight_bytes() const override { return inner_->weight_bytes(); }
  const std::string& weights_hash() const override { return inner_->weights_hash(); }

 private:
  std::shared_ptr<const Model> inner_;
  EndingTokenizer tokenizer_;
};

class EndOfTextTest : public ::testing::Test {
 protected:
  EndOfTextTest() {
    auto plain = testing::TinyModel(DType::kF32);
    // Draws at a high temperature, so that the tokens differ from one another.
    free_ = testing::RunOne(Options(plain), Sampled(20))->ids;
    // The sixth token ends it, unless it came before: then where it came first.
    end_ = free_[5];
    first_ = static_cast<uint32_t>(std::find(free_.begin(), free_.end(), end_) - free_.begin());
    model_ = std::make_shared<TokenizedModel>(plain, end_);
  }
  static EngineOptions Options(std::shared_ptr<const Model> model) {
    return testing::TinyOptions(model, testing::SinglePlan(model->blocks()));
  }
  static Request Sampled(uint32_t max_tokens) {
    Request request = MakeRequest(Prompt(10), max_tokens);
    request.sampling.temperature = 2;
    request.sampling.seed = 3;
    return request;
  }

  std::vector<int32_t> free_;
  int32_t end_ = 0;
  uint32_t first_ = 0;
  std::shared_ptr<const Model> model_;
};

TEST_F(EndOfTextTest, StopsAtTheEndingToken) {
  const auto got = testing::RunOne(Options(model_), Sampled(20));
  EXPECT_EQ(got->reason, FinishReason::kStop);
  EXPECT_EQ(got->ids, std::vector<int32_t>(free_.begin(), free_.begin() + first_ + 1));
}

TEST_F(EndOfTextTest, GoesOnWhenToldTo) {
  Request request = Sampled(20);
  request.ignore_eos = true;
  const auto got = testing::RunOne(Options(model_), request);
  EXPECT_EQ(got->reason, FinishReason::kLength);
  EXPECT_EQ(got->ids, free_);
}

TEST_F(EndOfTextTest, MinTokensPutsTheEndOff) {
  Request request = Sampled(20);
  request.min_tokens = first_ + 1;
  const auto got = testing::RunOne(Options(model_), request);
  EXPECT_GT(got->ids.size(), first_ + 1);
  request.min_tokens = first_;
  EXPECT_EQ(testing::RunOne(Options(model_), request)->ids.size(), first_ + 1);
}

TEST_F(EndOfTextTest, AnEndAtTheLastTokenIsAStop) {
  const auto got = testing::RunOne(Options(model_), Sampled(first_ + 1));
  EXPECT_EQ(got->reason, FinishReason::kStop);
}

}  // namespace
}  // namespace tandem
