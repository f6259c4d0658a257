// GGUF files that load: what the configuration, the views and the hash are then.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "engine/base/sha256.h"
#include "engine/model/gguf_load.h"
#include "engine/model/model.h"
#include "engine/model/tokenizer.h"
#include "tests/model/gguf_builder.h"

namespace tandem {
namespace {

std::shared_ptr<const Model> Load(const GgufBuilder& file) {
  auto bytes = std::make_shared<std::string>(file.Build());
  return LoadGgufBytes(std::as_bytes(std::span(*bytes)), bytes, "test.gguf");
}

// A path that is removed at the end of a test.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& content)
      : path_(testing::TempDir() + "tandem_gguf_" + std::to_string(::getpid()) + ".gguf") {
    std::ofstream(path_, std::ios::binary) << content;
  }
  ~TemporaryFile() { ::unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(GgufTest, LoadsEveryTypeInVersionsTwoAndThree) {
  for (const DType type : kAllDTypes) {
    for (const uint32_t version : {2u, 3u}) {
      const uint32_t width = Traits(type).block_elems == 256 ? 256 : 64;
      GgufBuilder file = TinyLlamaFile(type, width);
      file.version = version;
      const auto model = Load(file);
      const TensorView& down = model->layers()[0].w_down;
      EXPECT_EQ(down.type, type);
      EXPECT_EQ(down.rows, width);
      EXPECT_EQ(down.cols, width);
      const std::string& stored = file.tensor("blk.0.ffn_down.weight").data;
      ASSERT_EQ(down.bytes(), stored.size());
      EXPECT_EQ(std::memcmp(down.data, stored.data(), stored.size()), 0);
      EXPECT_EQ(model->layers()[0].wk.rows, width / 2);
      EXPECT_TRUE(model->has_data());
    }
  }
}

TEST(GgufTest, ReadsTheConfiguration) {
  const auto model = Load(TinyLlamaFile());
  const ModelConfig& config = model->config();
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.name, "tiny");
  EXPECT_EQ(config.n_layers, 1u);
  EXPECT_EQ(config.hidden, 64u);
  EXPECT_EQ(config.n_heads, 2u);
  EXPECT_EQ(config.n_kv_heads, 1u);
  EXPECT_EQ(config.head_dim, 32u);
  EXPECT_EQ(config.rope_dim, 32u);
  EXPECT_EQ(config.ffn, 64u);
  EXPECT_EQ(config.vocab, 8u);
  EXPECT_EQ(config.context, 128u);
  EXPECT_EQ(config.rope_theta, 10000.0f);
  EXPECT_EQ(config.rope_scale, 1.0f);
  EXPECT_EQ(config.norm_eps, 1e-5f);
  EXPECT_TRUE(config.tied_embedding);
  EXPECT_TRUE(config.rope_interleaved);
  EXPECT_EQ(model->output().data, model->token_embedding().data);
  EXPECT_EQ(model->tokenizer(), nullptr);
  EXPECT_EQ(model->chat_template(), "");
  EXPECT_EQ(model->source(), "test.gguf");
}

TEST(GgufTest, AcceptsIntegersOfAnyWidthAndDoubles) {
  GgufBuilder file = TinyLlamaFile();
  file.Set("llama.block_count", 10, Raw(uint64_t{1}));
  file.Set("llama.context_length", 5, Raw(int32_t{128}));
  file.Set("llama.attention.head_count", 0, Raw(uint8_t{2}));
  file.Set("llama.rope.freq_base", 12, Raw(500000.0));
  EXPECT_EQ(Load(file)->config().rope_theta, 500000.0f);
}

TEST(GgufTest, TakesKvHeadsFromHeadsWhenAbsent) {
  GgufBuilder file = TinyLlamaFile();
  file.Erase("llama.attention.head_count_kv");
  file.tensor("blk.0.attn_k.weight") = file.tensor("blk.0.attn_q.weight");
  file.tensors[6].name = "blk.0.attn_k.weight";
  file.EraseTensor("blk.0.attn_v.weight");
  file.AddTensor("blk.0.attn_v.weight", {64, 64}, DType::kQ4_0);
  EXPECT_EQ(Load(file)->config().n_kv_heads, 2u);
}

TEST(GgufTest, ReadsLinearRopeScaling) {
  GgufBuilder file = TinyLlamaFile();
  file.SetString("llama.rope.scaling.type", "linear");
  file.SetF32("llama.rope.scaling.factor", 4.0f);
  EXPECT_EQ(Load(file)->config().rope_scale, 4.0f);
  file.SetString("llama.rope.scaling.type", "none");
  EXPECT_EQ(Load(file)->config().rope_scale, 1.0f);
  GgufBuilder old = TinyLlamaFile();
  old.SetF32("llama.rope.scale_linear", 2.0f);
  EXPECT_EQ(Load(old)->config().rope_scale, 2.0f);
}

TEST(GgufTest, ReadsAnUntiedOutputAndMixedTypes) {
  GgufBuilder file = TinyLlamaFile(DType::kQ4_1);
  file.AddTensor("output.weight", {64, 8}, DType::kQ8_0);
  file.EraseTensor("blk.0.attn_v.weight");
  file.AddTensor("blk.0.attn_v.weight", {64, 32}, DType::kF16);
  const auto model = Load(file);
  EXPECT_FALSE(model->config().tied_embedding);
  EXPECT_FALSE(model->blocks().tied);
  EXPECT_EQ(model->output().type, DType::kQ8_0);
  EXPECT_EQ(model->layers()[0].wv.type, DType::kF16);
  uint64_t stored = 0;
  for (const GgufBuilder::Tensor& tensor : file.tensors) {
    stored += tensor.data.size();
  }
  EXPECT_EQ(model->weight_bytes().value, stored);
}

TEST(GgufTest, HonoursTheFilesAlignment) {
  GgufBuilder file = TinyLlamaFile();
  file.alignment = 128;
  file.SetU32("general.alignment", 128);
  const auto model = Load(file);
  const std::string& stored = file.tensor("output_norm.weight").data;
  EXPECT_EQ(std::memcmp(model->output_norm().data, stored.data(), stored.size()), 0);
}

TEST(GgufTest, AcceptsTensorsInAnyOrderWithGaps) {
  GgufBuilder file = TinyLlamaFile();
  GgufBuilder::Tensor& last = file.tensor("output_norm.weight");
  uint64_t begin = 0;
  for (const GgufBuilder::Tensor& tensor : file.tensors) {
    if (tensor.name != last.name) {
      begin += (tensor.data.size() + 31) / 32 * 32;
    }
  }
  last.data = std::string(64, '\x7f') + last.data;  // a gap of 64 bytes before it
  last.offset = begin + 64;
  const auto model = Load(file);
  EXPECT_EQ(std::memcmp(model->output_norm().data, last.data.data() + 64, 256), 0);
}

TEST(GgufTest, ReadsTheVocabulary) {
  const auto model = Load(TinyLlamaFileWithVocabulary());
  ASSERT_NE(model->tokenizer(), nullptr);
  EXPECT_EQ(model->tokenizer()->vocab_size(), 8u);
  EXPECT_EQ(model->tokenizer()->bos(), 0);
  EXPECT_EQ(model->tokenizer()->eos(), 1);
  EXPECT_TRUE(model->tokenizer()->adds_bos());
  EXPECT_TRUE(model->tokenizer()->IsSpecial(0));
  EXPECT_EQ(model->tokenizer()->Encode("abc", {}), std::vector<int32_t>{6});
  EXPECT_EQ(model->chat_template(), "{{ messages[0]['content'] }}");
}

TEST(GgufTest, OpensFilesAndNamesTheirWeightsByHash) {
  const TemporaryFile file(TinyLlamaFile().Build());
  const auto model = LoadGguf(file.path());
  EXPECT_EQ(model->source(), file.path());
  EXPECT_EQ(model->weights_hash(), Sha256HexOfFile(file.path()));
  EXPECT_EQ(model->weights_hash(), Sha256HexOfFile(file.path()));
}

TEST(GgufTest, StaysReadableWhenItsFileIsReplaced) {
  const TemporaryFile file(TinyLlamaFile().Build());
  const auto model = LoadGguf(file.path());
  const std::string before = model->weights_hash();
  ::unlink(file.path().c_str());
  EXPECT_EQ(model->weights_hash(), before);
  EXPECT_EQ(model->layers()[0].w_up.data[0], std::byte{0});
}

TEST(GgufTest, LoadsTheDefaultModel) {
  const char* path = std::getenv("TANDEM_TEST_MODEL");
  if (path == nullptr) {
    GTEST_SKIP()
        << "TANDEM_TEST_MODEL is not set (want the path of SmolLM2-135M-Instruct.Q4_1.gguf)";
  }
  const auto model = LoadGguf(path);
  const ModelConfig& config = model->config();
  EXPECT_EQ(config.n_layers, 30u);
  EXPECT_EQ(config.hidden, 576u);
  EXPECT_EQ(config.n_heads, 9u);
  EXPECT_EQ(config.n_kv_heads, 3u);
  EXPECT_EQ(config.head_dim, 64u);
  EXPECT_EQ(config.ffn, 1536u);
  EXPECT_EQ(config.vocab, 49152u);
  EXPECT_EQ(config.context, 8192u);
  EXPECT_EQ(config.rope_theta, 100000.0f);
  EXPECT_TRUE(config.tied_embedding);
  EXPECT_EQ(model->token_embedding().type, DType::kQ8_0);
  EXPECT_EQ(model->layers()[29].wo.type, DType::kQ4_1);
  EXPECT_EQ(model->weight_bytes().value, 96576768u);
  const Block& attention = model->blocks().at(BlockGraph::AttentionOf(LayerIndex{0}));
  EXPECT_EQ(attention.units, 3u);
  EXPECT_EQ(attention.elems_per_unit, 1u);
  ASSERT_NE(model->tokenizer(), nullptr);
  EXPECT_EQ(model->tokenizer()->vocab_size(), 49152u);
  EXPECT_FALSE(model->chat_template().empty());
}

}  // namespace
}  // namespace tandem
