// Synthetic models: the same bytes everywhere, the promised distributions, files that read back.
#include "engine/model/synthetic.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "engine/base/error.h"
#include "engine/base/sha256.h"
#include "engine/model/gguf_writer.h"
#include "tests/model/gguf_exercise.h"

namespace tandem {
namespace {

// The tiny shape, its widths of whole blocks of the type.
ModelConfig ConfigFor(DType type) {
  ModelConfig config = TinyConfig();
  if (Traits(type).block_elems == 256) {
    config.hidden = config.ffn = 256;
    config.head_dim = 64;
  }
  return config;
}

std::vector<TensorView> Views(const Model& model) {
  std::vector<TensorView> views = {model.token_embedding(), model.output_norm(), model.output()};
  for (const LayerWeights& layer : model.layers()) {
    views.insert(views.end(), {layer.attn_norm, layer.wq, layer.wk, layer.wv, layer.wo,
                               layer.ffn_norm, layer.w_gate, layer.w_up, layer.w_down});
    for (const TensorView& view : {layer.bq, layer.bk, layer.bv, layer.q_norm, layer.k_norm}) {
      if (view.rows > 0) views.push_back(view);
    }
  }
  return views;
}

std::string Stored(const TensorView& view) {
  return {reinterpret_cast<const char*>(view.data), view.bytes()};
}

std::string HashOf(const Model& model) {
  std::string all;
  for (const TensorView& view : Views(model)) {
    all += Stored(view);
  }
  return Sha256Hex(all);
}

struct Moments {
  double mean = 0;
  double variance = 0;
};
Moments MomentsOf(const TensorView& view) {
  std::vector<float> row(view.cols);
  double sum = 0;
  double squares = 0;
  for (uint64_t r = 0; r < view.rows; ++r) {
    DequantizeRow(view.type, view.row(r), row.data(), view.cols);
    for (const float value : row) {
      sum += value;
      squares += double{value} * value;
    }
  }
  const double n = static_cast<double>(view.rows * view.cols);
  return {sum / n, squares / n - (sum / n) * (sum / n)};
}

class TemporaryFolder {
 public:
  TemporaryFolder() : path_(testing::TempDir() + "tandem_synthetic_" + std::to_string(::getpid())) {
    std::filesystem::create_directory(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string At(const std::string& name) const { return path_ + "/" + name; }
  size_t Count() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  std::string path_;
};

void ExpectInvalid(const std::string& text, const std::string& field) {
  try {
    ParseSyntheticSpec(text);
    ADD_FAILURE() << text << " was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find(field), std::string::npos) << error.what();
  }
}

// The bytes are part of the contract: records made anywhere name these weights.
TEST(SyntheticTest, GivesTheSameBytesOnEveryMachine) {
  struct Golden {
    DType type;
    const char* hash;
  };
  static constexpr Golden kGolden[] = {
      {DType::kF32, "c70dfb5c152b60ae6a5a11a500d91a3968b66449f657201fde951abf22c1a0d8"},
      {DType::kF16, "53beca7aee6b7eb37065154c59d691854e6305d60d133b5a651c31829305a917"},
      {DType::kBF16, "671335debc17c218b4b6935eeabade7d3cf57099f738bd1bf9ea08968e4faa92"},
      {DType::kQ8_0, "92150e876b0cde9661ccf945675d3e295b86452f241bd3aa77859a30179489ae"},
      {DType::kQ4_0, "59f202e2b87522d2c87ebdce017da6e1d674ba08e65135c6a6a064c0cd6edfbe"},
      {DType::kQ4_1, "914954ca5d52307af71f2d8aa7bae7864897ea4bd73065fe6b629d660751a452"},
      {DType::kQ5_0, "01ea4a01030f0094d71f2bef0cc916b0150e695c682c8e24c1bc952e7943ffd5"},
      {DType::kQ5_1, "8e4ad7b089435f08c4610f11c604e317a1f94d44a71b89b20395701bb78f0518"},
      {DType::kQ4_K, "542c805eec42d5b3c93da9dd3a3a4a0a87d48a11ad016b21a4fd5fad568452fc"},
      {DType::kQ5_K, "c45b553a7d05eb98c1dacc67d129443321adea9c35239df55a52f58c3609fe28"},
      {DType::kQ6_K, "915d4cbd3d8f159e6acfff8985e162e5c35b1856cc807fd4e27b0b8911d1d065"},
  };
  for (const Golden& golden : kGolden) {
    const SyntheticSpec spec{.config = ConfigFor(golden.type),
                             .type = golden.type,
                             .embedding_type = golden.type,
                             .seed = 7};
    EXPECT_EQ(HashOf(*MakeSyntheticModel(spec)), golden.hash) << ToString(golden.type);
  }
}

TEST(SyntheticTest, SeedsAndTensorsDiffer) {
  SyntheticSpec spec{.config = TinyConfig(), .seed = 1};
  const auto one = MakeSyntheticModel(spec);
  spec.seed = 2;
  const auto two = MakeSyntheticModel(spec);
  EXPECT_NE(HashOf(*one), HashOf(*two));
  EXPECT_NE(one->weights_hash(), two->weights_hash());
  EXPECT_EQ(one->weights_hash(), MakeSyntheticModel({.config = TinyConfig()})->weights_hash());
  EXPECT_NE(Stored(one->layers()[0].wq), Stored(one->layers()[1].wq));
  EXPECT_NE(Stored(one->layers()[0].wk), Stored(one->layers()[0].wv));
}

TEST(SyntheticTest, WeightsHaveTheVarianceThatKeepsActivationsOfOrderOne) {
  SyntheticSpec spec = ParseSyntheticSpec("h=256,l=1,heads=4,ffn=512,vocab=512,type=f32,tied=0");
  for (const DType type : kAllDTypes) {
    spec.type = spec.embedding_type = type;
    const auto model = MakeSyntheticModel(spec);
    // Sampling noise of a variance over n values is about sqrt(2/n); 4-bit rounding adds a little.
    const auto expect = [&](const TensorView& view, double variance) {
      const Moments moments = MomentsOf(view);
      EXPECT_NEAR(moments.mean, 0.0, 5 * std::sqrt(variance / 65536)) << ToString(type);
      EXPECT_NEAR(moments.variance / variance, 1.0, 0.03) << ToString(type);
    };
    expect(model->token_embedding(), 1.0);
    expect(model->output(), 1.0 / 256);
    expect(model->layers()[0].wq, 1.0 / 256);
    expect(model->layers()[0].w_down, 1.0 / 512);
    const Moments norm = MomentsOf(model->layers()[0].ffn_norm);
    EXPECT_NEAR(norm.mean, 1.0, 0.02);
    EXPECT_GT(norm.variance, 0.001);
    EXPECT_LT(norm.variance, 0.01);
  }
}

TEST(SyntheticTest, RowsDoNotDependOnTheThreadsThatMadeThem) {
  // Large enough to be shared out; its first rows must equal those of a matrix too small for that.
  const SyntheticSpec large = ParseSyntheticSpec("h=64,l=1,heads=1,vocab=20000,ffn=32");
  const SyntheticSpec small = ParseSyntheticSpec("h=64,l=1,heads=1,vocab=100,ffn=32");
  const auto big = MakeSyntheticModel(large);
  const auto few = MakeSyntheticModel(small);
  EXPECT_EQ(std::memcmp(big->token_embedding().data, few->token_embedding().data,
                        few->token_embedding().bytes()),
            0);
}

TEST(SyntheticTest, SharedLayersShareBytesButCountAll) {
  SyntheticSpec spec{.config = TinyConfig(), .shared_layers = true};
  const auto shared = MakeSyntheticModel(spec);
  EXPECT_EQ(shared->layers()[0].wq.data, shared->layers()[1].wq.data);
  spec.shared_layers = false;
  const auto own = MakeSyntheticModel(spec);
  EXPECT_EQ(shared->weight_bytes(), own->weight_bytes());
  EXPECT_EQ(Stored(shared->layers()[1].w_up), Stored(own->layers()[0].w_up));
  EXPECT_NE(shared->weights_hash(), own->weights_hash());
}

TEST(SyntheticTest, ShapeOnlyModelsHaveShapesAndNoData) {
  const SyntheticSpec spec = ParseSyntheticSpec(
      "h=8192,l=80,heads=64,kv=8,ffn=28672,vocab=128256,ctx=131072,type=q4_0,tied=0");
  const auto model = MakeShapeOnlyModel(spec);
  EXPECT_FALSE(model->has_data());
  for (const TensorView& view : Views(*model)) {
    EXPECT_EQ(view.data, nullptr);
  }
  EXPECT_EQ(model->blocks().size(), 162u);
  const uint64_t layer_weights = uint64_t{8192} * (2 * 8192 + 2 * 1024 + 3 * 28672);
  const uint64_t norms = uint64_t{161} * 8192 * 4;
  EXPECT_EQ(model->weight_bytes().value,
            uint64_t{2} * 128256 * 8192 / 32 * 34 + 80 * (layer_weights / 32 * 18) + norms);
  EXPECT_EQ(SumOfBlocks(*model), model->weight_bytes());
}

TEST(SyntheticTest, FilesReadBackToIdenticalWeights) {
  const TemporaryFolder folder;
  for (const DType type : kAllDTypes) {
    for (const bool tied : {true, false}) {
      SyntheticSpec spec{.config = ConfigFor(type), .type = type, .embedding_type = DType::kQ8_0};
      spec.config.tied_embedding = tied;
      spec.config.rope_theta = 123456.7f;
      spec.config.rope_scale = tied ? 1.0f : 2.5f;
      spec.config.rope_dim = 12;
      const std::string path = folder.At("model.gguf");
      WriteSyntheticGguf(spec, path);
      const auto made = MakeSyntheticModel(spec);
      const auto read = LoadGguf(path);
      const std::vector<TensorView> expected = Views(*made);
      const std::vector<TensorView> actual = Views(*read);
      ASSERT_EQ(actual.size(), expected.size());
      for (size_t i = 0; i < actual.size(); ++i) {
        EXPECT_EQ(actual[i].type, expected[i].type);
        EXPECT_EQ(actual[i].rows, expected[i].rows);
        EXPECT_EQ(Stored(actual[i]), Stored(expected[i]));
      }
      EXPECT_EQ(read->config().tied_embedding, tied);
      EXPECT_EQ(read->config().rope_theta, spec.config.rope_theta);
      EXPECT_EQ(read->config().rope_scale, spec.config.rope_scale);
      EXPECT_EQ(read->config().rope_dim, 12u);
      EXPECT_EQ(read->config().head_dim, spec.config.head_dim);
      EXPECT_EQ(read->config().context, 256u);
      EXPECT_EQ(read->config().vocab, 320u);
      EXPECT_EQ(read->weight_bytes(), made->weight_bytes());
      EXPECT_EQ(read->tokenizer(), nullptr);
    }
  }
  EXPECT_EQ(folder.Count(), 1u);
}

TEST(SyntheticTest, LeavesNothingBehindWhenWritingFails) {
  const TemporaryFolder folder;
  const SyntheticSpec spec{.config = TinyConfig()};
  std::filesystem::create_directory(folder.At("taken"));
  for (const std::string& path : {folder.At("none/model.gguf"), folder.At("taken")}) {
    try {
      WriteSyntheticGguf(spec, path);
      ADD_FAILURE() << path << " was written";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kIo);
      EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
    }
  }
  EXPECT_EQ(folder.Count(), 1u);
}

TEST(SyntheticTest, ParsesAndFormatsTheWholeForm) {
  const std::string text =
      "h=256,l=4,heads=8,kv=2,hd=32,ffn=512,vocab=1000,ctx=2048,type=q4_1,embed=q8_0,tied=1,seed=7";
  const SyntheticSpec spec = ParseSyntheticSpec(text);
  EXPECT_EQ(spec.config.hidden, 256u);
  EXPECT_EQ(spec.config.n_kv_heads, 2u);
  EXPECT_EQ(spec.config.rope_dim, 32u);
  EXPECT_EQ(spec.type, DType::kQ4_1);
  EXPECT_EQ(spec.embedding_type, DType::kQ8_0);
  EXPECT_EQ(spec.seed, 7u);
  EXPECT_EQ(FormatSyntheticSpec(spec), text);
  EXPECT_EQ(FormatSyntheticSpec(ParseSyntheticSpec("synthetic:" + text)), text);
  const std::string rest =
      text + ",eps=1e-06,theta=500000,rope=16,scale=2.5,interleaved=0,shared=1";
  EXPECT_EQ(FormatSyntheticSpec(ParseSyntheticSpec(rest)), rest);
}

TEST(SyntheticTest, ParsesAndFormatsFamiliesAndScalings) {
  const std::string base =
      "h=64,l=1,heads=4,kv=2,hd=16,ffn=96,vocab=100,ctx=64,type=f32,embed=f32,tied=1,seed=1";
  for (const char* more :
       {",arch=qwen2", ",arch=qwen3,window=12", ",bias=1,window=5",
        ",yarn=4,orig=32,fast=32,slow=1", ",arch=qwen2,yarn=2.5,orig=32,fast=8,slow=2,attn=1.5",
        ",theta=500000,llama3=8,orig=64,low=1,high=4", ",interleaved=1,arch=qwen3", ",attn=0.5"}) {
    EXPECT_EQ(FormatSyntheticSpec(ParseSyntheticSpec(base + more)), base + more);
  }
  const SyntheticSpec qwen2 = ParseSyntheticSpec(base + ",arch=qwen2");
  EXPECT_TRUE(qwen2.config.attention_bias);
  EXPECT_FALSE(qwen2.config.rope_interleaved);
  const SyntheticSpec llama3 = ParseSyntheticSpec(base + ",llama3=8,orig=64");
  EXPECT_EQ(llama3.config.rope_factors.size(), 8u);
  EXPECT_EQ(llama3.config.rope_factors[7], 8.0f);
}

TEST(SyntheticTest, EveryFamilyReadsBackToIdenticalWeights) {
  const TemporaryFolder folder;
  for (const char* more : {"arch=qwen2", "arch=qwen3,type=q4_0", "bias=1,window=9,tied=0",
                           "arch=qwen2,yarn=4,orig=32,attn=1.5", "llama3=8,orig=64,low=1,high=4"}) {
    const SyntheticSpec spec =
        ParseSyntheticSpec(std::string("h=64,l=2,heads=4,kv=2,vocab=100,") + more);
    WriteSyntheticGguf(spec, folder.At("model.gguf"));
    const auto made = MakeSyntheticModel(spec);
    const auto read = LoadGguf(folder.At("model.gguf"));
    EXPECT_EQ(HashOf(*read), HashOf(*made)) << more;
    EXPECT_EQ(read->weight_bytes(), made->weight_bytes()) << more;
    EXPECT_EQ(SumOfBlocks(*read), read->weight_bytes()) << more;
    const ModelConfig& config = read->config();
    EXPECT_EQ(config.architecture, spec.config.architecture);
    EXPECT_EQ(config.rope_interleaved, spec.config.rope_interleaved);
    EXPECT_EQ(config.attention_bias, spec.config.attention_bias);
    EXPECT_EQ(config.qk_norm, spec.config.qk_norm);
    EXPECT_EQ(config.sliding_window, spec.config.sliding_window);
    EXPECT_EQ(config.yarn, spec.config.yarn);
    EXPECT_EQ(config.rope_factors, spec.config.rope_factors);
    EXPECT_EQ(config.rope_magnitude, spec.config.rope_magnitude);
  }
}

TEST(SyntheticTest, BiasesAreThereAndSmall) {
  const auto model = MakeSyntheticModel(ParseSyntheticSpec("h=256,l=1,heads=4,arch=qwen2"));
  const Moments bias = MomentsOf(model->layers()[0].bq);
  EXPECT_NEAR(bias.mean, 0.0, 0.1);
  EXPECT_NEAR(bias.variance, 0.25 / 3, 0.02);
  EXPECT_NE(Stored(model->layers()[0].bk), Stored(model->layers()[0].bv));
}

TEST(SyntheticTest, FillsInDefaults) {
  const SyntheticSpec spec = ParseSyntheticSpec("h=72,l=3,heads=6");
  EXPECT_EQ(spec.config.head_dim, 12u);
  EXPECT_EQ(spec.config.n_kv_heads, 6u);
  EXPECT_EQ(spec.config.ffn, 288u);
  EXPECT_EQ(spec.config.vocab, 1024u);
  EXPECT_EQ(spec.config.context, 2048u);
  EXPECT_EQ(spec.type, DType::kF32);
  EXPECT_EQ(spec.embedding_type, DType::kF32);
  EXPECT_TRUE(spec.config.tied_embedding);
  EXPECT_EQ(spec.config.norm_eps, 1e-5f);
  EXPECT_EQ(spec.config.rope_theta, 10000.0f);
  EXPECT_EQ(ParseSyntheticSpec("h=68,l=1,heads=2").config.ffn, 288u);
  EXPECT_EQ(ParseSyntheticSpec("h=64,l=1,heads=2,type=q4_0").embedding_type, DType::kQ8_0);
  EXPECT_EQ(ParseSyntheticSpec("h=64,l=1,heads=2,type=bf16").embedding_type, DType::kBF16);
}

TEST(SyntheticTest, RefusesSpecificationsThatCannotBe) {
  ExpectInvalid("", "'h' is missing");
  ExpectInvalid("h=64,heads=2", "'l' is missing");
  ExpectInvalid("h=64,l=1,heads=2,vocb=5", "unknown key 'vocb' (did you mean 'vocab'?)");
  ExpectInvalid("h=64,l=1,heads=2,h=64", "'h' is given twice");
  ExpectInvalid("h=64,l=1,heads=2,kv", "'kv' (want key=value)");
  ExpectInvalid("h=64,l=1,heads=2,,", "'' (want key=value)");
  ExpectInvalid("h=64,l=1,heads=2,type=q3_k", "type=q3_k");
  ExpectInvalid("h=64,l=1,heads=2,ctx=many", "ctx=many");
  ExpectInvalid("h=64,l=1,heads=2,ctx=99999999999", "ctx=99999999999");
  ExpectInvalid("h=-64,l=1,heads=2", "h=-64");
  ExpectInvalid("h=64 ,l=1,heads=2", "h=64 ");
  ExpectInvalid("h=64,l=1,heads=2,tied=2", "tied=2");
  ExpectInvalid("h=64,l=1,heads=2,eps=nan", "norm epsilon");
  ExpectInvalid("h=64,l=1,heads=3", "no multiple of heads=3");
  ExpectInvalid("h=64,l=1,heads=0", "no multiple of heads=0");
  ExpectInvalid("h=64,l=0,heads=2", "layers: 0");
  ExpectInvalid("h=64,l=1,heads=4,kv=3", "KV heads");
  ExpectInvalid("h=48,l=1,heads=2,type=q4_0", "multiple of 32");
  ExpectInvalid("h=64,l=1,heads=2,ffn=100,type=q4_0", "ffn_down.weight: rows of 100");
  ExpectInvalid("h=320,l=1,heads=4,ffn=512,type=q4_k",
                "attn_q.weight: rows of 320 (want a multiple of 256 for Q4_K)");
  ExpectInvalid("h=256,l=1,heads=4,ffn=480,type=q6_k", "ffn_down.weight: rows of 480");
  ExpectInvalid("h=192,l=1,heads=4,embed=q5_k", "embedding rows of 192 (want a multiple of 256");
  ExpectInvalid("h=4294967295,l=1,heads=1", "");
  ExpectInvalid("h=64,l=1,heads=2,arch=gemma", "arch=gemma (want llama, qwen2, qwen3)");
  ExpectInvalid("h=64,l=1,heads=2,arch=qwen2,bias=0", "a qwen2 model always has them");
  ExpectInvalid("h=64,l=1,heads=2,arch=qwen3,bias=1", "a qwen3 model has none");
  ExpectInvalid("h=64,l=1,heads=2,window=-1", "window=-1");
  ExpectInvalid("h=64,l=1,heads=2,window=4294967295", "sliding window");
  ExpectInvalid("h=64,l=1,heads=2,yarn=4", "yarn without orig");
  ExpectInvalid("h=64,l=1,heads=2,orig=64", "orig without yarn or llama3");
  ExpectInvalid("h=64,l=1,heads=2,fast=4", "fast without yarn");
  ExpectInvalid("h=64,l=1,heads=2,yarn=nan,orig=64", "YaRN factor");
  ExpectInvalid("h=64,l=1,heads=2,yarn=0.5,orig=64", "YaRN factor");
  ExpectInvalid("h=64,l=1,heads=2,yarn=4,orig=0", "YaRN original context");
  ExpectInvalid("h=64,l=1,heads=2,yarn=4,orig=64,slow=64", "YaRN betas");
  ExpectInvalid("h=64,l=1,heads=2,llama3=0,orig=64", "llama3 factor");
  ExpectInvalid("h=64,l=1,heads=2,llama3=8,orig=64,low=4", "llama3 frequency factors");
  ExpectInvalid("h=64,l=1,heads=2,llama3=8,yarn=2,orig=64", "exclude each other");
  ExpectInvalid("h=64,l=1,heads=2,rope=4294967295,llama3=8,orig=64", "rotary dimensions");
  ExpectInvalid("h=64,l=1,heads=2,attn=inf", "rotary attention factor");
}

TEST(SyntheticTest, RefusesModelsLargerThanTheMachine) {
  const SyntheticSpec spec = ParseSyntheticSpec("h=262144,l=16384,heads=1024,hd=256,ffn=1048576");
  try {
    MakeSyntheticModel(spec);
    FAIL() << "made";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("bytes of memory"), std::string::npos);
  }
  EXPECT_NO_THROW(MakeShapeOnlyModel(spec));
}

TEST(SyntheticTest, RefusesToWriteWhatLlamaFilesCannotSay) {
  const TemporaryFolder folder;
  SyntheticSpec spec{.config = TinyConfig()};
  spec.config.rope_interleaved = false;
  try {
    WriteSyntheticGguf(spec, folder.At("model.gguf"));
    FAIL() << "written";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
  }
  EXPECT_EQ(folder.Count(), 0u);
}

}  // namespace
}  // namespace tandem
