#include "engine/model/inspect.h"

#include <gtest/gtest.h>

#include "engine/model/synthetic.h"

namespace tandem {
namespace {

TEST(InspectTest, DescribesShapeTypesAndBytes) {
  const SyntheticSpec spec{
      .config = TinyConfig(), .type = DType::kQ4_1, .embedding_type = DType::kQ8_0};
  const auto model = MakeShapeOnlyModel(spec);
  const nlohmann::json about = Describe(*model);
  EXPECT_EQ(about["shape"]["layers"], 2);
  EXPECT_EQ(about["shape"]["kv_heads"], 2);
  EXPECT_EQ(about["weight_bytes"], model->weight_bytes().value);
  EXPECT_EQ(about["kv_bytes_per_token"], 2 * 2 * 4 * 16);
  EXPECT_EQ(about["tokenizer"], nullptr);
  EXPECT_EQ(about["chat_template"], false);
  EXPECT_EQ(about["has_data"], false);
  uint64_t bytes = 0;
  for (const nlohmann::json& entry : about["tensors"]) {
    bytes += entry["bytes"].get<uint64_t>();
    if (entry["class"] == "wq") {
      EXPECT_EQ(entry["type"], "Q4_1");
      EXPECT_EQ(entry["count"], 2);
    }
  }
  EXPECT_EQ(bytes, model->weight_bytes().value);
  // 320*64 + 2 * (2*64 + 64*64*2 + 32*64*2 + 3*96*64) + 64
  EXPECT_EQ(about["parameters"], 20480 + 2 * (128 + 8192 + 4096 + 18432) + 64);
  ASSERT_EQ(about["blocks"].size(), 4u);
  EXPECT_EQ(about["blocks"][1]["kind"], "ATTENTION");
  EXPECT_EQ(about["blocks"][1]["count"], 2);
}

TEST(InspectTest, NamesWhatAPlainLlamaLacks) {
  const auto model = MakeShapeOnlyModel(
      ParseSyntheticSpec("h=64,l=2,heads=4,kv=2,arch=qwen2,window=32,yarn=4,orig=512"));
  const nlohmann::json about = Describe(*model);
  EXPECT_EQ(about["architecture"], "qwen2");
  EXPECT_EQ(about["shape"]["attention_bias"], true);
  EXPECT_EQ(about["shape"]["sliding_window"], 32);
  uint64_t bytes = 0;
  for (const nlohmann::json& entry : about["tensors"]) bytes += entry["bytes"].get<uint64_t>();
  EXPECT_EQ(bytes, model->weight_bytes().value);
  EXPECT_NE(
      DescribeModel(*model).find("attention   biases of q, k and v, a window of 32 positions, "
                                 "rotary scaling: YaRN 4 from 512"),
      std::string::npos);
  const auto plain = MakeShapeOnlyModel({.config = TinyConfig()});
  EXPECT_EQ(DescribeModel(*plain).find("attention   "), std::string::npos);
}

TEST(InspectTest, DescribesInLines) {
  const auto model = MakeShapeOnlyModel({.config = TinyConfig()});
  const std::string text = DescribeModel(*model);
  EXPECT_NE(text.find("2 layers, hidden 64, 4 heads over 2 KV heads of 16"), std::string::npos);
  EXPECT_NE(text.find("none: prompts are token ids"), std::string::npos);
  EXPECT_EQ(text.back(), '\n');
}

}  // namespace
}  // namespace tandem
