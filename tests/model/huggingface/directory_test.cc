// Model directories: what loads, from memory and from disk, and what each wrong file is told.
#include "engine/model/huggingface/directory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>

#include "engine/base/error.h"
#include "engine/base/sha256.h"
#include "engine/model/load_model.h"
#include "engine/model/rope.h"
#include "engine/model/stored_model.h"
#include "tests/model/huggingface/safetensors_builder.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;
constexpr char kIndex[] = "model.safetensors.index.json";

std::string MessageOf(const std::function<void()>& load, ErrorCode code = ErrorCode::kModelFile) {
  try {
    load();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "loaded";
}

void ExpectRefused(const std::function<void(FolderBuilder&)>& spoil, const std::string& what,
                   ErrorCode code = ErrorCode::kModelFile) {
  FolderBuilder folder = TinyLlamaFolder();
  spoil(folder);
  const std::string message = MessageOf([&] { folder.Load(); }, code);
  EXPECT_NE(message.find(what), std::string::npos) << message;
}

// The tiny model as two shards and an index.
FolderBuilder Sharded() {
  FolderBuilder folder{.config = TinyLlamaConfig()};
  const SafetensorsBuilder whole = TinyLlamaTensors(DType::kF16);
  SafetensorsBuilder shards[2];
  nlohmann::json map;
  int i = 0;
  for (const auto& [name, entry] : whole.header.items()) {
    if (name == "__metadata__") {
      continue;
    }
    const int shard = i++ < 5 ? 0 : 1;
    const uint64_t begin = entry["data_offsets"][0];
    const uint64_t end = entry["data_offsets"][1];
    shards[shard].Add(name, entry["dtype"], entry["shape"], whole.data.substr(begin, end - begin));
    map[name] = "model-0000" + std::to_string(shard + 1) + "-of-00002.safetensors";
  }
  folder.files["model-00001-of-00002.safetensors"] = shards[0].Build();
  folder.files["model-00002-of-00002.safetensors"] = shards[1].Build();
  folder.files[kIndex] = nlohmann::json{{"weight_map", map}}.dump();
  return folder;
}

TEST(HuggingFaceTest, ReadsTheConfiguration) {
  const auto model = TinyLlamaFolder().Load();
  const ModelConfig& config = model->config();
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.n_layers, 1u);
  EXPECT_EQ(config.hidden, 16u);
  EXPECT_EQ(config.n_heads, 2u);
  EXPECT_EQ(config.n_kv_heads, 1u);
  EXPECT_EQ(config.head_dim, 8u);
  EXPECT_EQ(config.ffn, 32u);
  EXPECT_EQ(config.vocab, 8u);
  EXPECT_EQ(config.context, 128u);
  EXPECT_EQ(config.rope_theta, 5000.0f);
  EXPECT_EQ(config.norm_eps, 1e-5f);
  EXPECT_TRUE(config.tied_embedding);
  EXPECT_FALSE(config.rope_interleaved);
  EXPECT_EQ(model->source(), "folder");
  EXPECT_EQ(model->tokenizer(), nullptr);
}

TEST(HuggingFaceTest, ReadsLinearRopeScalingInBothSpellings) {
  FolderBuilder folder = TinyLlamaFolder();
  folder.config["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  EXPECT_EQ(folder.Load()->config().rope_scale, 4.0f);
  folder.config.erase("rope_scaling");
  folder.config["rope_parameters"] = {
      {"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 123.0}};
  EXPECT_EQ(folder.Load()->config().rope_scale, 2.0f);
  EXPECT_EQ(folder.Load()->config().rope_theta, 123.0f);
}

TEST(HuggingFaceTest, ReadsYarnAndLlama3Scaling) {
  FolderBuilder folder = TinyLlamaFolder();
  folder.config["rope_scaling"] = {
      {"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}};
  EXPECT_EQ(folder.Load()->config().yarn, (YarnScaling{.factor = 4.0f, .original_context = 32}));
  EXPECT_EQ(folder.Load()->config().rope_magnitude, 1.0f);
  folder.config["rope_scaling"]["attention_factor"] = 1.0;
  EXPECT_NEAR(folder.Load()->config().rope_magnitude, 1 / (1 + 0.1 * std::log(4.0)), 1e-6);
  const nlohmann::json llama3 = {{"rope_type", "llama3"},
                                 {"factor", 8.0},
                                 {"low_freq_factor", 1.0},
                                 {"high_freq_factor", 4.0},
                                 {"original_max_position_embeddings", 64}};
  folder.config["rope_scaling"] = llama3;
  EXPECT_EQ(folder.Load()->config().rope_factors,
            Llama3RopeFactors({.original_context = 64}, 8, 5000.0f));
  for (const auto& [key, value] : llama3.items()) {
    if (key != "rope_type") {
      ExpectRefused(
          [&, name = key](auto& f) {
            f.config["rope_scaling"] = llama3;
            f.config["rope_scaling"].erase(name);
          },
          key + ": missing");
      ExpectRefused(
          [&, name = key](auto& f) {
            f.config["rope_scaling"] = llama3;
            f.config["rope_scaling"][name] = -1;
          },
          "config.json");
    }
  }
}

TEST(HuggingFaceTest, WindowsMeanWhatTheirFamilySays) {
  FolderBuilder folder = TinyLlamaFolder();
  folder.config["sliding_window"] = 32;
  EXPECT_EQ(folder.Load()->config().sliding_window, 0u);
  folder.config["architectures"] = {"MistralForCausalLM"};
  EXPECT_EQ(folder.Load()->config().sliding_window, 32u);
  folder.config["sliding_window"] = nullptr;
  EXPECT_EQ(folder.Load()->config().sliding_window, 0u);
}

SafetensorsBuilder TinyQwenTensors(bool biases) {
  SafetensorsBuilder file = TinyLlamaTensors(DType::kBF16);
  const std::string layer = "model.layers.0.self_attn.";
  if (biases) {
    file.Add(layer + "q_proj.bias", {16}, DType::kBF16);
    file.Add(layer + "k_proj.bias", {8}, DType::kBF16);
    file.Add(layer + "v_proj.bias", {8}, DType::kBF16);
  } else {
    file.Add(layer + "q_norm.weight", {8}, DType::kBF16);
    file.Add(layer + "k_norm.weight", {8}, DType::kBF16);
  }
  return file;
}

TEST(HuggingFaceTest, WindowsFollowTheListOfLayers) {
  const auto window = [](const char* family, const nlohmann::json& types, bool use) {
    FolderBuilder folder = TinyLlamaFolder();
    folder.config["architectures"] = {family};
    folder.config["sliding_window"] = 32;
    folder.config["use_sliding_window"] = use;
    folder.config["max_window_layers"] = 0;
    folder.config["layer_types"] = types;
    if (std::string(family) == "Qwen2ForCausalLM") {
      folder.files["model.safetensors"] = TinyQwenTensors(true).Build();
    }
    return folder.Load()->config().sliding_window;
  };
  EXPECT_EQ(window("Qwen2ForCausalLM", nullptr, true), 32u);
  EXPECT_EQ(window("Qwen2ForCausalLM", {"sliding_attention"}, true), 32u);
  EXPECT_EQ(window("Qwen2ForCausalLM", {"sliding_attention"}, false), 0u);
  EXPECT_EQ(window("Qwen2ForCausalLM", {"full_attention"}, true), 0u);
  EXPECT_EQ(window("MistralForCausalLM", {"sliding_attention"}, false), 32u);
  EXPECT_EQ(window("LlamaForCausalLM", {"full_attention"}, false), 0u);
  constexpr ErrorCode kNo = ErrorCode::kUnsupported;
  const auto refused = [&](const nlohmann::json& types, const std::string& what, ErrorCode code) {
    ExpectRefused(
        [&](auto& f) {
          f.config["num_hidden_layers"] = 2;
          f.config["sliding_window"] = 32;
          f.config["layer_types"] = types;
        },
        what, code);
  };
  refused({"full_attention", "sliding_attention"}, "a window in 1 of 2 layers", kNo);
  refused({"full_attention", "linear_attention"}, "layer_types: 'linear_attention'", kNo);
  refused({"sliding_attention", "sliding_attention"}, "layer_types: sliding_attention", kNo);
  refused({"full_attention"}, "one name for each of the 2 layers", ErrorCode::kModelFile);
  refused("full_attention", "one name for each", ErrorCode::kModelFile);
  refused({1, 2}, "layer_types: '1'", kNo);
  ExpectRefused(
      [](auto& f) {
        f.config["architectures"] = {"MistralForCausalLM"};
        f.config["sliding_window"] = 32;
        f.config["layer_types"] = {"full_attention"};
      },
      "full_attention, but sliding_window is 32");
  ExpectRefused(
      [](auto& f) {
        f.config["architectures"] = {"Qwen2ForCausalLM"};
        f.config["num_hidden_layers"] = 3;
        f.config["sliding_window"] = 32;
        f.config["use_sliding_window"] = true;
        f.config["max_window_layers"] = 2;
      },
      "max_window_layers: 2: a window in some layers", kNo);
}

TEST(HuggingFaceTest, BiasesAreWhatTheConfigurationSays) {
  const auto folder_with = [](const nlohmann::json& says, bool biases, const char* output) {
    FolderBuilder folder = TinyLlamaFolder();
    SafetensorsBuilder file = biases ? TinyQwenTensors(true) : TinyLlamaTensors(DType::kBF16);
    if (output != nullptr) {
      file.Add("model.layers.0.self_attn.o_proj.bias", "BF16", {16},
               std::string(31, '\0') + std::string(output, 1));
    }
    folder.files["model.safetensors"] = file.Build();
    folder.config["attention_bias"] = says;
    return folder;
  };
  EXPECT_TRUE(folder_with(true, true, nullptr).Load()->config().attention_bias);
  // A bias of the output that is all zero changes nothing.
  EXPECT_TRUE(folder_with(true, true, "\0").Load()->config().attention_bias);
  EXPECT_FALSE(folder_with(false, false, "\0").Load()->config().attention_bias);
  const auto message = [&](const FolderBuilder& folder, ErrorCode code) {
    return MessageOf([&] { folder.Load(); }, code);
  };
  EXPECT_NE(message(folder_with(true, true, "\x3F"), ErrorCode::kUnsupported)
                .find("'model.layers.0.self_attn.o_proj.bias'"),
            std::string::npos);
  EXPECT_NE(message(folder_with(true, false, nullptr), ErrorCode::kModelFile)
                .find("attention_bias: true, but the layers have no"),
            std::string::npos);
  for (const nlohmann::json& says : {nlohmann::json(false), nlohmann::json()}) {
    EXPECT_NE(message(folder_with(says, true, nullptr), ErrorCode::kModelFile)
                  .find("attention_bias: not true, but the layers have"),
              std::string::npos);
  }
  SafetensorsBuilder file = TinyLlamaTensors(DType::kBF16);
  file.Add("model.layers.0.mlp.up_proj.bias", {32}, DType::kBF16);
  ExpectRefused([&](auto& f) { f.files["model.safetensors"] = file.Build(); },
                "'model.layers.0.mlp.up_proj.bias'", ErrorCode::kUnsupported);
}

TEST(HuggingFaceTest, ReadsQwen2AndQwen3) {
  FolderBuilder folder = TinyLlamaFolder();
  folder.files["model.safetensors"] = TinyQwenTensors(true).Build();
  folder.config["architectures"] = {"Qwen2ForCausalLM"};
  folder.config["sliding_window"] = 64;
  folder.config["use_sliding_window"] = false;
  folder.config["max_window_layers"] = 1;
  const auto qwen2 = folder.Load();
  EXPECT_EQ(qwen2->config().architecture, "qwen2");
  EXPECT_TRUE(qwen2->config().attention_bias);
  EXPECT_FALSE(qwen2->config().rope_interleaved);
  EXPECT_EQ(qwen2->config().sliding_window, 0u);
  EXPECT_EQ(qwen2->layers()[0].bk.type, DType::kF32);
  EXPECT_EQ(qwen2->layers()[0].bk.cols, 8u);
  folder.config["use_sliding_window"] = true;
  EXPECT_EQ(folder.Load()->config().sliding_window, 0u);  // from layer 1 on, and there is one
  folder.config["max_window_layers"] = 0;
  EXPECT_EQ(folder.Load()->config().sliding_window, 64u);

  folder = TinyLlamaFolder();
  folder.files["model.safetensors"] = TinyQwenTensors(false).Build();
  folder.config["architectures"] = {"Qwen3ForCausalLM"};
  folder.config["head_dim"] = 8;
  const auto qwen3 = folder.Load();
  EXPECT_TRUE(qwen3->config().qk_norm);
  EXPECT_EQ(qwen3->layers()[0].q_norm.cols, 8u);
  ExpectRefused([](auto& f) { f.config["architectures"] = {"Qwen3ForCausalLM"}; },
                "model.layers.0.self_attn.q_norm.weight");
}

TEST(HuggingFaceTest, KeepsMatricesAsStoredAndWidensNorms) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    const SafetensorsBuilder file = TinyLlamaTensors(type);
    const auto model = TinyLlamaFolder(type).Load();
    const auto stored = [&](const std::string& name) {
      return file.data.data() + file.header[name]["data_offsets"][0].get<uint64_t>();
    };
    const LayerWeights& layer = model->layers()[0];
    EXPECT_EQ(layer.w_down.type, type);
    EXPECT_EQ(std::memcmp(layer.w_down.data, stored("model.layers.0.mlp.down_proj.weight"),
                          layer.w_down.bytes()),
              0);
    EXPECT_EQ(layer.attn_norm.type, DType::kF32);
    std::vector<float> norm(16);
    std::vector<char> raw(16 * Traits(type).block_bytes);
    std::memcpy(raw.data(), stored("model.layers.0.input_layernorm.weight"), raw.size());
    DequantizeRow(type, raw.data(), norm.data(), 16);
    EXPECT_EQ(std::memcmp(layer.attn_norm.data, norm.data(), 64), 0);
    for (const auto slot : kLayerSlots) {
      if ((layer.*slot).rows == 0) continue;
      EXPECT_EQ(reinterpret_cast<uintptr_t>((layer.*slot).data) % Traits(type).block_bytes, 0u);
    }
  }
}

// One byte of padding more or less puts every tensor at an odd place.
TEST(HuggingFaceTest, CopiesWhatTheFileMisaligns) {
  const SafetensorsBuilder file = TinyLlamaTensors(DType::kF32);
  for (size_t pad = 0; pad < 4; ++pad) {
    FolderBuilder folder = TinyLlamaFolder();
    folder.files["model.safetensors"] =
        SafetensorsBuilder::Build(file.header.dump() + std::string(pad, ' '), file.data);
    const auto model = folder.Load();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(model->output().data) % 4, 0u);
    EXPECT_EQ(std::memcmp(model->output().data, file.data.data(), model->output().bytes()), 0);
  }
}

TEST(HuggingFaceTest, TheHashIsOfConfigurationAndWeights) {
  FolderBuilder folder = Sharded();
  const std::string hash = folder.Load()->weights_hash();
  EXPECT_EQ(hash,
            Sha256Hex(folder.config.dump() + folder.files["model-00001-of-00002.safetensors"] +
                      folder.files["model-00002-of-00002.safetensors"]));
  folder.config["rope_theta"] = 5001.0;
  EXPECT_NE(folder.Load()->weights_hash(), hash);
}

TEST(HuggingFaceTest, ShardsAreTheWholeModel) {
  const auto whole = TinyLlamaFolder(DType::kF16).Load();
  const auto sharded = Sharded().Load();
  ASSERT_EQ(sharded->weight_bytes(), whole->weight_bytes());
  for (const auto slot : kLayerSlots) {
    const TensorView& view = sharded->layers()[0].*slot;
    if (view.rows == 0) continue;
    EXPECT_EQ(std::memcmp(view.data, (whole->layers()[0].*slot).data, view.bytes()), 0);
  }
}

TEST(HuggingFaceTest, TheOutputMatrixFollowsTheConfiguration) {
  SafetensorsBuilder file = TinyLlamaTensors(DType::kBF16);
  file.Add("lm_head.weight", {8, 16}, DType::kBF16);
  file.Add("model.layers.0.self_attn.rotary_emb.inv_freq", {4}, DType::kF32);
  FolderBuilder folder = TinyLlamaFolder();
  folder.files["model.safetensors"] = file.Build();
  EXPECT_NE(MessageOf([&] { folder.Load(); }).find("'lm_head.weight' is there and differs"),
            std::string::npos);
  // The same again under both names is what some writers store.
  const uint64_t bytes = 8 * 16 * 2;
  file.data.replace(file.header["lm_head.weight"]["data_offsets"][0].get<uint64_t>(), bytes,
                    file.data, 0, bytes);
  folder.files["model.safetensors"] = file.Build();
  const auto tied = folder.Load();
  EXPECT_TRUE(tied->config().tied_embedding);
  EXPECT_EQ(tied->output().data, tied->token_embedding().data);
  folder.config["tie_word_embeddings"] = false;
  const auto model = folder.Load();
  EXPECT_FALSE(model->config().tied_embedding);
  EXPECT_NE(model->output().data, model->token_embedding().data);
  ExpectRefused([](auto& f) { f.config.erase("tie_word_embeddings"); },
                "tensor 'lm_head.weight' missing");
}

TEST(HuggingFaceTest, RefusesConfigurationsThatAreNone) {
  for (const char* text : {"", "[]", "nul", "{\"a\": 1, \"a\": 2}", "{\"hidden_size\": 1e999}"}) {
    ExpectRefused([&](auto& f) { f.files["config.json"] = text; }, "config.json");
  }
  ExpectRefused([](auto& f) { f.files["config.json"] = std::string(2u << 20, ' '); },
                "want at most 1048576");
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size",
                          "num_attention_heads", "max_position_embeddings", "architectures"}) {
    ExpectRefused([&](auto& f) { f.config.erase(key); }, std::string("config.json: ") + key);
    for (const char* value : {"-1", "1.5", "\"1\"", "[]", "{}", "true", "4294967296", "null"}) {
      ExpectRefused([&](auto& f) { f.config[key] = nlohmann::json::parse(value); }, key);
    }
  }
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size",
        "num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"}) {
    for (const uint64_t value : {uint64_t{0}, uint64_t{0x7fffffff}, uint64_t{0xffffffff}}) {
      ExpectRefused([&](auto& f) { f.config[key] = value; }, "config.json");
    }
  }
  ExpectRefused([](auto& f) { f.config["rms_norm_eps"] = 0; }, "norm epsilon");
  ExpectRefused([](auto& f) { f.config["rope_theta"] = -1; }, "rotary base");
  ExpectRefused([](auto& f) { f.config["rope_scaling"] = "linear"; }, "want an object");
}

TEST(HuggingFaceTest, NamesWhatItDoesNotSupport) {
  constexpr ErrorCode kNo = ErrorCode::kUnsupported;
  ExpectRefused([](auto& f) { f.config["architectures"] = {"GPT2LMHeadModel"}; },
                "architectures: 'GPT2LMHeadModel'", kNo);
  ExpectRefused([](auto& f) { f.config["rope_scaling"] = {{"type", "dynamic"}}; },
                "rope_scaling: 'dynamic'", kNo);
  ExpectRefused([](auto& f) { f.config["quantization_config"] = {{"quant_method", "gptq"}}; },
                "quantised by 'gptq'", kNo);
  ExpectRefused([](auto& f) { f.config["quantization_config"] = {{"quant_method", "fp8"}}; },
                "quantised by 'fp8'", kNo);
  ExpectRefused([](auto& f) { f.config["quantization_config"] = nlohmann::json::object(); },
                "an unnamed method", kNo);
  ExpectRefused([](auto& f) { f.config["compression_config"] = {{"format", "int-quantized"}}; },
                "compression_config: weights quantised", kNo);
  ExpectRefused([](auto& f) { f.config["mlp_bias"] = true; }, "mlp_bias", kNo);
  for (const char* kind : {"full_attention", "sliding_attention"}) {
    ExpectRefused([&](auto& f) { f.config["rope_parameters"][kind] = {{"rope_theta", 1e6}}; },
                  std::string("rope_parameters: one for ") + kind, kNo);
  }
  ExpectRefused(
      [](auto& f) {
        f.config["rope_parameters"] = {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}};
      },
      "partial_rotary_factor", kNo);
  for (const char* kind : {"longrope", "su", "ntk", "mrope", ""}) {
    ExpectRefused([&](auto& f) { f.config["rope_scaling"] = {{"rope_type", kind}}; },
                  std::string("rope_scaling: '") + kind + "'", kNo);
  }
  ExpectRefused(
      [](auto& f) {
        f.config["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}, {"truncate", false}};
      },
      "truncate", kNo);
  ExpectRefused([](auto& f) { f.config["hidden_act"] = "gelu"; }, "hidden_act: 'gelu'", kNo);
  ExpectRefused([](auto& f) { f.config["partial_rotary_factor"] = 0.5; }, "partial_rotary", kNo);
  SafetensorsBuilder file = TinyLlamaTensors(DType::kBF16);
  file.Add("model.layers.0.mlp.experts.0.w1.weight", {8, 16}, DType::kBF16);
  ExpectRefused([&](auto& f) { f.files["model.safetensors"] = file.Build(); },
                "tensor 'model.layers.0.mlp.experts.0.w1.weight'", kNo);
}

TEST(HuggingFaceTest, NamesTensorsThatAreMissingOrOfAnotherShape) {
  const SafetensorsBuilder whole = TinyLlamaTensors(DType::kBF16);
  for (const auto& [name, entry] : whole.header.items()) {
    if (name == "__metadata__") {
      continue;
    }
    SafetensorsBuilder file = whole;
    const auto moved = entry;
    file.header.erase(name);
    file.header["other"] = moved;
    ExpectRefused([&](auto& f) { f.files["model.safetensors"] = file.Build(); }, name);
    file = whole;
    file.header[name]["shape"] = {
        1, 2,
        (moved["data_offsets"][1].get<uint64_t>() - moved["data_offsets"][0].get<uint64_t>()) / 4};
    ExpectRefused([&](auto& f) { f.files["model.safetensors"] = file.Build(); }, name);
  }
  ExpectRefused([](auto& f) { f.config["num_hidden_layers"] = 2; }, "model.layers.1.");
}

TEST(HuggingFaceTest, RefusesIndexesThatDoNotMatchTheirFiles) {
  const auto expect = [](const std::function<void(FolderBuilder&, nlohmann::json&)>& spoil,
                         const std::string& what) {
    FolderBuilder folder = Sharded();
    nlohmann::json index = nlohmann::json::parse(folder.files[kIndex]);
    spoil(folder, index);
    folder.files[kIndex] = index.dump();
    const std::string message = MessageOf([&] { folder.Load(); });
    EXPECT_NE(message.find(what), std::string::npos) << message;
  };
  expect([](auto&, auto& i) { i["weight_map"]["model.norm.weight"] = "none.safetensors"; },
         "folder/none.safetensors: missing");
  expect([](auto&, auto& i) { i["weight_map"]["ghost"] = "model-00001-of-00002.safetensors"; },
         "tensor 'ghost': missing, but the index");
  expect([](auto&, auto& i) { i["weight_map"].erase("model.norm.weight"); },
         "tensor 'model.norm.weight': the index (model.safetensors.index.json) does not name it");
  expect([](auto&,
            auto& i) { i["weight_map"]["model.norm.weight"] = "model-00001-of-00002.safetensors"; },
         "'model.norm.weight'");
  expect([](auto&, auto& i) { i.erase("weight_map"); }, "weight_map");
  expect([](auto&, auto& i) { i["weight_map"] = nlohmann::json::object(); }, "weight_map");
  expect([](auto& f, auto&) { f.files.erase("model-00002-of-00002.safetensors"); }, "missing");
  // No way out of the folder.
  for (const char* name : {"../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "",
                           "a\\b.safetensors", "config.json"}) {
    expect([&](auto&, auto& i) { i["weight_map"]["model.norm.weight"] = name; },
           "want the name of a .safetensors file in this folder");
  }
  expect([](auto&,
            auto& i) { i["weight_map"]["model.norm.weight"] = std::string("a\0.safetensors", 14); },
         "want the name of a .safetensors file in this folder");
  expect([](auto&, auto& i) { i["weight_map"]["model.norm.weight"] = 7; }, "want the name");
}

TEST(HuggingFaceTest, ReadsFoldersOnDisk) {
  const std::string path = testing::TempDir() + "tandem_hf_" + std::to_string(::getpid());
  fs::create_directories(path + "/blobs");
  const auto write = [&](const std::string& name, const std::string& content) {
    std::ofstream(path + "/" + name, std::ios::binary) << content;
  };
  EXPECT_NE(MessageOf([&] { LoadModel(path); }).find("no config.json"), std::string::npos);
  const FolderBuilder folder = Sharded();
  write("config.json", folder.config.dump());
  EXPECT_NE(MessageOf([&] { LoadModel(path); }).find("neither model.safetensors nor"),
            std::string::npos);
  write("pytorch_model.bin", "x");
  EXPECT_NE(MessageOf([&] { LoadModel(path); }).find("PyTorch weights (pytorch_model.bin)"),
            std::string::npos);
  for (const auto& [name, content] : folder.files) {
    write(name, content);
  }
  EXPECT_EQ(LoadModel(path + "/")->source(), path);
  EXPECT_EQ(LoadModel(path)->weights_hash(), folder.Load()->weights_hash());
  EXPECT_NE(
      MessageOf([&] { LoadModel(path + "/config.json"); }).find("want the directory: " + path),
      std::string::npos);
  // As in a cache of blobs that the folder's entries link to.
  const std::string shard = path + "/model-00002-of-00002.safetensors";
  fs::rename(shard, path + "/blobs/0123");
  EXPECT_NE(MessageOf([&] { LoadModel(path); }).find(shard + ": missing"), std::string::npos);
  fs::create_symlink("blobs/0123", shard);
  EXPECT_NO_THROW(LoadModel(path));
  fs::remove_all(path);
}

}  // namespace
}  // namespace tandem
