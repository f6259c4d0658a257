// Builds model directories in memory for tests, wrong ones on purpose.
//
//   FolderBuilder folder = TinyLlamaFolder();
//   folder.config["num_hidden_layers"] = 2;
//   std::shared_ptr<const Model> model = folder.Load();
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/dtype.h"
#include "engine/model/huggingface/directory.h"

namespace tandem {

// A safetensors file: tensors are laid out in the order in which they are added.
class SafetensorsBuilder {
 public:
  using Json = nlohmann::ordered_json;

  Json header = Json::object();
  std::string data;

  void Add(const std::string& name, const std::string& dtype, const std::vector<uint64_t>& shape,
           const std::string& bytes) {
    header[name] = {{"dtype", dtype},
                    {"shape", shape},
                    {"data_offsets", {data.size(), data.size() + bytes.size()}}};
    data += bytes;
  }
  // Values are a pattern that is finite in every type.
  void Add(const std::string& name, const std::vector<uint64_t>& shape, DType type) {
    uint64_t bytes = Traits(type).block_bytes;
    for (const uint64_t n : shape) {
      bytes *= n;
    }
    std::string content(bytes, '\0');
    for (size_t i = 0; i < content.size(); ++i) {
      content[i] = static_cast<char>((i + data.size()) % 61);
    }
    Add(name, ToString(type), shape, content);
  }

  static std::string Build(const std::string& header_text, const std::string& data) {
    const uint64_t length = header_text.size();
    std::string out(sizeof(length), '\0');
    std::memcpy(out.data(), &length, sizeof(length));
    return out + header_text + data;
  }
  std::string Build() const { return Build(header.dump(), data); }
};

struct FolderBuilder {
  nlohmann::json config = nlohmann::json::object();
  std::map<std::string, std::string> files;  // beside config.json

  HuggingFaceFiles Files() const {
    auto kept = std::make_shared<std::map<std::string, std::vector<char>>>();
    HuggingFaceFiles out{.source = "folder"};
    auto all = files;
    all.emplace("config.json", config.dump());
    for (const auto& [name, content] : all) {
      // Exactly sized on the heap, so that a sanitizer sees a read beyond the end.
      (*kept)[name].assign(content.begin(), content.end());
      out.content[name] = std::as_bytes(std::span(kept->at(name)));
    }
    out.owner = kept;
    return out;
  }
  std::shared_ptr<const Model> Load() const { return LoadHuggingFace(Files()); }
};

// The tensors of a llama of one layer: hidden 16, 2 heads of 8 over 1 KV head, FFN 32,
// vocabulary 8.
inline SafetensorsBuilder TinyLlamaTensors(DType type) {
  SafetensorsBuilder file;
  const std::string layer = "model.layers.0.";
  file.header["__metadata__"] = {{"format", "pt"}};
  file.Add("model.embed_tokens.weight", {8, 16}, type);
  file.Add(layer + "input_layernorm.weight", {16}, type);
  file.Add(layer + "mlp.down_proj.weight", {16, 32}, type);
  file.Add(layer + "mlp.gate_proj.weight", {32, 16}, type);
  file.Add(layer + "mlp.up_proj.weight", {32, 16}, type);
  file.Add(layer + "post_attention_layernorm.weight", {16}, type);
  file.Add(layer + "self_attn.k_proj.weight", {8, 16}, type);
  file.Add(layer + "self_attn.o_proj.weight", {16, 16}, type);
  file.Add(layer + "self_attn.q_proj.weight", {16, 16}, type);
  file.Add(layer + "self_attn.v_proj.weight", {8, 16}, type);
  file.Add("model.norm.weight", {16}, type);
  return file;
}

inline nlohmann::json TinyLlamaConfig() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"hidden_act", "silu"},
          {"hidden_size", 16},
          {"intermediate_size", 32},
          {"max_position_embeddings", 128},
          {"num_attention_heads", 2},
          {"num_hidden_layers", 1},
          {"num_key_value_heads", 1},
          {"rms_norm_eps", 1e-5},
          {"rope_scaling", nullptr},
          {"rope_theta", 5000.0},
          {"tie_word_embeddings", true},
          {"vocab_size", 8}};
}

inline FolderBuilder TinyLlamaFolder(DType type = DType::kBF16) {
  return {.config = TinyLlamaConfig(),
          .files = {{"model.safetensors", TinyLlamaTensors(type).Build()}}};
}

}  // namespace tandem
