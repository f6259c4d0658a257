// Qwen2 files: biases of q, k and v, and rotation pairs half a head apart.
#include "tests/model/arch/family_file.h"

namespace tandem {
namespace {

GgufBuilder Qwen2File() {
  GgufBuilder file = TinyFamilyFile("qwen2");
  AddBiases(file);
  return file;
}

TEST(Qwen2Test, ReadsItsBiases) {
  const auto model = LoadFile(Qwen2File());
  EXPECT_EQ(model->config().architecture, "qwen2");
  EXPECT_FALSE(model->config().rope_interleaved);
  EXPECT_TRUE(model->config().attention_bias);
  EXPECT_FALSE(model->config().qk_norm);
  EXPECT_EQ(reinterpret_cast<const float*>(model->layers()[0].bq.data)[63], 0.5f);
  EXPECT_EQ(reinterpret_cast<const float*>(model->layers()[0].bv.data)[0], -1.0f);
  // A KV head takes 64 + 32 + 32 floats of bias with it.
  const auto plain = LoadFile(TinyLlamaFile());
  EXPECT_EQ(model->blocks().blocks[1].bytes_per_elem.value,
            plain->blocks().blocks[1].bytes_per_elem.value + (64 + 32 + 32) * 4);
  EXPECT_EQ(SumOfBlocks(*model), model->weight_bytes());
}

TEST(Qwen2Test, ReadsItsOwnKeysOnly) {
  GgufBuilder file = Qwen2File();
  file.SetF32("qwen2.rope.freq_base", 1e6f);
  file.SetF32("llama.rope.freq_base", 5.0f);
  EXPECT_EQ(LoadFile(file)->config().rope_theta, 1e6f);
  ExpectFileRefused(
      file, [](auto& f) { f.Erase("qwen2.block_count"); }, ErrorCode::kModelFile,
      "qwen2.block_count");
  ExpectFileRefused(
      file, [](auto& f) { f.SetF32("qwen2.logit_scale", 0.5f); }, ErrorCode::kUnsupported,
      "qwen2.logit_scale");
}

TEST(Qwen2Test, RefusesFilesWithoutThem) {
  for (const char* name : {"blk.0.attn_q.bias", "blk.0.attn_k.bias", "blk.0.attn_v.bias"}) {
    ExpectFileRefused(
        Qwen2File(), [&](auto& f) { f.EraseTensor(name); }, ErrorCode::kModelFile, name);
  }
}

TEST(Qwen2Test, RefusesTensorsOfOtherFamilies) {
  ExpectFileRefused(
      Qwen2File(), [](auto& f) { AddHeadNorms(f); }, ErrorCode::kUnsupported, "attn_k_norm.weight");
  ExpectFileRefused(
      Qwen2File(), [](auto& f) { AddFloats(f, "rope_freqs.weight", std::vector<float>(16, 1.0f)); },
      ErrorCode::kUnsupported, "rope_freqs.weight");
}

}  // namespace
}  // namespace tandem
