// Qwen3 files: norms of each head of q and k, heads of a width of their own, pairs half a head
// apart.
#include "tests/model/arch/family_file.h"

namespace tandem {
namespace {

GgufBuilder Qwen3File() {
  GgufBuilder file = TinyFamilyFile("qwen3");
  AddHeadNorms(file);
  return file;
}

TEST(Qwen3Test, ReadsItsHeadNorms) {
  const auto model = LoadFile(Qwen3File());
  EXPECT_EQ(model->config().architecture, "qwen3");
  EXPECT_FALSE(model->config().rope_interleaved);
  EXPECT_TRUE(model->config().qk_norm);
  EXPECT_FALSE(model->config().attention_bias);
  EXPECT_EQ(model->layers()[0].q_norm.cols, 32u);
  EXPECT_EQ(reinterpret_cast<const float*>(model->layers()[0].k_norm.data)[31], 0.75f);
  EXPECT_EQ(model->blocks().blocks[1].head_norm_bytes.value, 2u * 32 * 4);
  EXPECT_EQ(SumOfBlocks(*model), model->weight_bytes());
}

TEST(Qwen3Test, HeadsNeedNotShareOutTheHiddenWidth) {
  GgufBuilder file = TinyFamilyFile("qwen3");
  file.SetU32("qwen3.attention.head_count", 1);
  file.SetU32("qwen3.attention.key_length", 32);
  file.SetU32("qwen3.attention.value_length", 32);
  for (const char* name : {"blk.0.attn_q.weight", "blk.0.attn_output.weight"}) {
    file.EraseTensor(name);
  }
  file.AddTensor("blk.0.attn_q.weight", {64, 32}, DType::kQ4_0);
  file.AddTensor("blk.0.attn_output.weight", {32, 64}, DType::kQ4_0);
  AddHeadNorms(file);
  const auto model = LoadFile(file);
  EXPECT_EQ(model->config().head_dim, 32u);
  EXPECT_EQ(model->config().q_dim(), 32u);
  EXPECT_EQ(SumOfBlocks(*model), model->weight_bytes());
}

TEST(Qwen3Test, RefusesFilesWithoutThemOrOfAnotherWidth) {
  for (const char* name : {"blk.0.attn_q_norm.weight", "blk.0.attn_k_norm.weight"}) {
    ExpectFileRefused(
        Qwen3File(), [&](auto& f) { f.EraseTensor(name); }, ErrorCode::kModelFile, name);
    ExpectFileRefused(
        Qwen3File(),
        [&](auto& f) {
          f.EraseTensor(name);
          AddFloats(f, name, std::vector<float>(64, 1.0f));
        },
        ErrorCode::kModelFile, name);
  }
  ExpectFileRefused(
      Qwen3File(), [](auto& f) { AddBiases(f); }, ErrorCode::kUnsupported,
      "attn_k.bias': biases here");
}

}  // namespace
}  // namespace tandem
