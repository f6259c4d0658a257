// Llama files: what they may bring beside the nine tensors of a layer, and the keys all families
// share.
#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "tests/model/arch/family_file.h"

namespace tandem {
namespace {

using ::testing::ElementsAreArray;

constexpr ErrorCode kBad = ErrorCode::kModelFile;
constexpr ErrorCode kUnsupported = ErrorCode::kUnsupported;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(LlamaTest, APlainFileHasNothingMore) {
  const auto model = LoadFile(TinyLlamaFile());
  EXPECT_FALSE(model->config().attention_bias);
  EXPECT_FALSE(model->config().qk_norm);
  EXPECT_FALSE(model->config().yarn.has_value());
  EXPECT_TRUE(model->config().rope_factors.empty());
  EXPECT_EQ(model->config().sliding_window, 0u);
  EXPECT_EQ(model->layers()[0].bq.rows, 0u);
  EXPECT_EQ(model->blocks().blocks[1].head_norm_bytes.value, 0u);
}

TEST(LlamaTest, TakesTheFactorsOfItsFrequencies) {
  GgufBuilder file = TinyLlamaFile();
  std::vector<float> factors(16, 1.0f);
  factors[15] = 8.0f;
  AddFloats(file, "rope_freqs.weight", factors);
  const auto model = LoadFile(file);
  EXPECT_THAT(model->config().rope_factors, ElementsAreArray(factors));
  // They are configuration: no weights to place.
  EXPECT_EQ(SumOfBlocks(*model), model->weight_bytes());
  EXPECT_EQ(model->weight_bytes(), LoadFile(TinyLlamaFile())->weight_bytes());
}

TEST(LlamaTest, RefusesFactorsThatCannotBe) {
  const auto with = [](std::vector<float> factors) {
    return [factors](GgufBuilder& f) { AddFloats(f, "rope_freqs.weight", factors); };
  };
  ExpectFileRefused(TinyLlamaFile(), with(std::vector<float>(15, 1.0f)), kBad,
                    "'rope_freqs.weight'");
  ExpectFileRefused(TinyLlamaFile(), with(std::vector<float>(17, 1.0f)), kBad,
                    "'rope_freqs.weight'");
  for (const float value : {kNan, kInf, -kInf, 0.0f, -1.0f, 1e30f, 1e-30f}) {
    std::vector<float> factors(16, 1.0f);
    factors[3] = value;
    ExpectFileRefused(TinyLlamaFile(), with(factors), kBad, "rotary frequency factor 3");
  }
  ExpectFileRefused(
      TinyLlamaFile(), [](auto& f) { f.AddTensor("rope_freqs.weight", {16}, DType::kF16); },
      kUnsupported, "'rope_freqs.weight': vector of type F16");
  // Of another width than the rotary dimensions.
  ExpectFileRefused(
      TinyLlamaFile(),
      [&](auto& f) {
        f.SetU32("llama.rope.dimension_count", 16);
        AddFloats(f, "rope_freqs.weight", std::vector<float>(16, 1.0f));
      },
      kBad, "'rope_freqs.weight'");
}

TEST(LlamaTest, TakesBiasesOfQKAndVTogether) {
  GgufBuilder file = TinyLlamaFile();
  AddBiases(file);
  const auto model = LoadFile(file);
  EXPECT_TRUE(model->config().attention_bias);
  EXPECT_EQ(model->layers()[0].bq.cols, 64u);
  EXPECT_EQ(model->layers()[0].bk.cols, 32u);
  EXPECT_EQ(SumOfBlocks(*model), model->weight_bytes());
  for (const char* name : {"blk.0.attn_q.bias", "blk.0.attn_k.bias", "blk.0.attn_v.bias"}) {
    ExpectFileRefused(file, [&](auto& f) { f.EraseTensor(name); }, kBad, name);
  }
  ExpectFileRefused(
      file,
      [](auto& f) {
        f.EraseTensor("blk.0.attn_k.bias");
        AddFloats(f, "blk.0.attn_k.bias", std::vector<float>(64, 0.0f));
      },
      kBad, "'blk.0.attn_k.bias': has 1 rows of 64 (want 1 rows of 32)");
  ExpectFileRefused(
      file,
      [](auto& f) {
        f.EraseTensor("blk.0.attn_v.bias");
        f.AddTensor("blk.0.attn_v.bias", {32}, DType::kQ8_0);
      },
      kUnsupported, "'blk.0.attn_v.bias': vector of type Q8_0");
}

TEST(LlamaTest, ReadsYarn) {
  GgufBuilder file = TinyLlamaFile();
  file.SetString("llama.rope.scaling.type", "yarn");
  file.SetF32("llama.rope.scaling.factor", 4.0f);
  // Without an original context, the one that the file states.
  EXPECT_EQ(LoadFile(file)->config().yarn, (YarnScaling{.factor = 4.0f, .original_context = 128}));
  file.SetU32("llama.rope.scaling.original_context_length", 32);
  file.SetF32("llama.rope.scaling.yarn_beta_fast", 16.0f);
  file.SetF32("llama.rope.scaling.yarn_beta_slow", 2.0f);
  file.SetF32("llama.rope.scaling.attn_factor", 1.5f);
  file.SetF32("llama.rope.scaling.yarn_log_multiplier", 0.0f);
  file.SetF32("llama.rope.scaling.yarn_ext_factor", -1.0f);
  file.SetF32("llama.rope.scaling.yarn_attn_factor", 1.1386f);  // what follows from the factor
  const auto model = LoadFile(file);
  EXPECT_EQ(model->config().yarn, (YarnScaling{4.0f, 32, 16.0f, 2.0f}));
  EXPECT_EQ(model->config().rope_magnitude, 1.5f);
  EXPECT_EQ(model->config().rope_scale, 1.0f);
}

TEST(LlamaTest, RefusesYarnThatCannotBe) {
  GgufBuilder yarn = TinyLlamaFile();
  yarn.SetString("llama.rope.scaling.type", "yarn");
  yarn.SetF32("llama.rope.scaling.factor", 4.0f);
  yarn.SetU32("llama.rope.scaling.original_context_length", 32);
  EXPECT_NO_THROW(LoadFile(yarn));
  // What is no number at all is refused by its key, before anyone asks what it means.
  const auto refused = [&](const char* key, float value, ErrorCode code, const char* what) {
    ExpectFileRefused(
        yarn, [&](auto& f) { f.SetF32(key, value); }, std::isfinite(value) ? code : kBad,
        std::isfinite(value) ? what : key);
  };
  for (const float value : {kNan, kInf, -4.0f, 0.0f, 0.5f, 1e9f}) {
    refused("llama.rope.scaling.factor", value, kBad, "YaRN factor");
  }
  for (const float value : {kNan, kInf, -1.0f, 0.0f, 0.5f}) {
    refused("llama.rope.scaling.yarn_beta_fast", value, kBad, "YaRN betas");
  }
  for (const float value : {kNan, kInf, -1.0f, 0.0f, 33.0f}) {
    refused("llama.rope.scaling.yarn_beta_slow", value, kBad, "YaRN betas");
  }
  for (const float value : {kNan, kInf, -1.0f, 0.0f, 1e9f}) {
    refused("llama.rope.scaling.attn_factor", value, kBad, "rotary attention factor");
  }
  for (const char* key :
       {"llama.rope.scaling.yarn_ext_factor", "llama.rope.scaling.yarn_attn_factor"}) {
    refused(key, 0.5f, kUnsupported, key);
    refused(key, kNan, kUnsupported, key);
  }
  refused("llama.rope.scaling.yarn_log_multiplier", 0.1f, kUnsupported, "yarn_log_multiplier");
  refused("llama.rope.freq_base", 1.0f, kBad, "rotary base");
  ExpectFileRefused(
      yarn, [](auto& f) { f.Erase("llama.rope.scaling.factor"); }, kBad,
      "llama.rope.scaling.factor");
  ExpectFileRefused(
      yarn, [](auto& f) { f.SetU32("llama.rope.scaling.original_context_length", 0); }, kBad,
      "YaRN original context: 0");
  ExpectFileRefused(
      yarn,
      [](auto& f) { f.Set("llama.rope.scaling.original_context_length", 5, Raw(int32_t{-1})); },
      kBad, "llama.rope.scaling.original_context_length");
}

TEST(LlamaTest, ReadsAWindow) {
  GgufBuilder file = TinyLlamaFile();
  file.SetU32("llama.attention.sliding_window", 4096);
  EXPECT_EQ(LoadFile(file)->config().sliding_window, 4096u);
  file.SetU32("llama.attention.sliding_window", 0);  // as files say that there is none
  EXPECT_EQ(LoadFile(file)->config().sliding_window, 0u);
}

TEST(LlamaTest, RefusesWindowsThatCannotBe) {
  const char* key = "llama.attention.sliding_window";
  ExpectFileRefused(TinyLlamaFile(), [&](auto& f) { f.Set(key, 5, Raw(int32_t{-1})); }, kBad, key);
  ExpectFileRefused(
      TinyLlamaFile(), [&](auto& f) { f.Set(key, 11, Raw(int64_t{-4096})); }, kBad, key);
  ExpectFileRefused(TinyLlamaFile(), [&](auto& f) { f.SetF32(key, 4096.0f); }, kBad, key);
  ExpectFileRefused(
      TinyLlamaFile(), [&](auto& f) { f.SetU32(key, 0xffffffffu); }, kBad, "sliding window");
  // A window of its own for each layer, as other families have.
  ExpectFileRefused(
      TinyLlamaFile(), [&](auto& f) { f.template SetArray<uint32_t>(key, 4, {4096}); }, kBad, key);
}

}  // namespace
}  // namespace tandem
