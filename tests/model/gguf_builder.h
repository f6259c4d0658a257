// Builds GGUF files for tests, wrong ones on purpose: every count, type, offset and byte can be
// set. Independent of the engine's own writer, so that neither hides the other's mistakes.
//
//   GgufBuilder file = TinyLlamaFile();
//   file.tensor("output_norm.weight").offset = 12;
//   std::string bytes = file.Build();
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/check.h"
#include "engine/model/dtype.h"

namespace tandem {

template <typename T>
std::string Raw(T value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

inline std::string RawString(std::string_view text) {
  return Raw(static_cast<uint64_t>(text.size())) + std::string(text);
}

class GgufBuilder {
 public:
  struct Key {
    std::string name;
    uint32_t type;
    std::string payload;
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;
    uint32_t ggml_type = 0;
    std::string data;
    std::optional<uint64_t> offset;  // else the next aligned place
  };

  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> n_tensors;
  std::optional<uint64_t> n_keys;
  uint64_t alignment = 32;  // of the layout; the metadata key is set apart
  std::vector<Key> keys;
  std::vector<Tensor> tensors;

  void Set(const std::string& name, uint32_t type, std::string payload) {
    for (Key& key : keys) {
      if (key.name == name) {
        key.type = type;
        key.payload = std::move(payload);
        return;
      }
    }
    keys.push_back({name, type, std::move(payload)});
  }
  void SetU32(const std::string& name, uint32_t value) { Set(name, 4, Raw(value)); }
  void SetF32(const std::string& name, float value) { Set(name, 6, Raw(value)); }
  void SetBool(const std::string& name, bool value) { Set(name, 7, Raw(uint8_t{value})); }
  void SetString(const std::string& name, std::string_view text) { Set(name, 8, RawString(text)); }
  void SetStrings(const std::string& name, const std::vector<std::string>& texts) {
    std::string payload = Raw(uint32_t{8}) + Raw(uint64_t{texts.size()});
    for (const std::string& text : texts) {
      payload += RawString(text);
    }
    Set(name, 9, payload);
  }
  template <typename T>
  void SetArray(const std::string& name, uint32_t element, const std::vector<T>& values) {
    std::string payload = Raw(element) + Raw(uint64_t{values.size()});
    for (const T value : values) {
      payload += Raw(value);
    }
    Set(name, 9, payload);
  }
  void Erase(const std::string& name) {
    std::erase_if(keys, [&](const Key& key) { return key.name == name; });
  }

  Tensor& tensor(const std::string& name) {
    for (Tensor& tensor : tensors) {
      if (tensor.name == name) {
        return tensor;
      }
    }
    Check(false, "test: no such tensor");
    return tensors[0];
  }
  void EraseTensor(const std::string& name) {
    std::erase_if(tensors, [&](const Tensor& tensor) { return tensor.name == name; });
  }
  // Data are whole rows of a pattern that is valid in every type.
  void AddTensor(const std::string& name, std::vector<uint64_t> dims, DType type) {
    const DTypeTraits& traits = Traits(type);
    uint64_t elems = 1;
    for (const uint64_t d : dims) {
      elems *= d;
    }
    std::string data(elems / traits.block_elems * traits.block_bytes, '\0');
    for (size_t i = 0; i < data.size(); ++i) {
      data[i] = static_cast<char>(i % 61);
    }
    tensors.push_back({name, std::move(dims), traits.ggml_type, data, {}});
  }

  // Everything before the tensor data, without the padding.
  std::string Header() const {
    std::string out = magic + Raw(version) + Raw(n_tensors.value_or(tensors.size())) +
                      Raw(n_keys.value_or(keys.size()));
    for (const Key& key : keys) {
      out += RawString(key.name) + Raw(key.type) + key.payload;
    }
    uint64_t next = 0;
    for (const Tensor& tensor : tensors) {
      out += RawString(tensor.name) + Raw(static_cast<uint32_t>(tensor.dims.size()));
      for (const uint64_t d : tensor.dims) {
        out += Raw(d);
      }
      out += Raw(tensor.ggml_type) + Raw(tensor.offset.value_or(next));
      next = Align(next + tensor.data.size());
    }
    return out;
  }

  std::string Build() const {
    std::string out = Header();
    for (const Tensor& tensor : tensors) {
      out.resize(Align(out.size()), '\0');
      out += tensor.data;
    }
    return out;
  }

 private:
  uint64_t Align(uint64_t n) const { return (n + alignment - 1) / alignment * alignment; }
};

// A llama of one layer that loads: hidden 64, 2 heads of 32 over 1 KV head, FFN 64, vocabulary 8;
// `width` in place of 64 where a type has longer blocks.
inline GgufBuilder TinyLlamaFile(DType type = DType::kQ4_0, uint32_t width = 64) {
  GgufBuilder file;
  file.SetString("general.architecture", "llama");
  file.SetString("general.name", "tiny");
  file.SetU32("llama.block_count", 1);
  file.SetU32("llama.context_length", 128);
  file.SetU32("llama.embedding_length", width);
  file.SetU32("llama.feed_forward_length", width);
  file.SetU32("llama.attention.head_count", 2);
  file.SetU32("llama.attention.head_count_kv", 1);
  file.SetF32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  file.AddTensor("token_embd.weight", {width, 8}, type);
  file.AddTensor("blk.0.attn_norm.weight", {width}, DType::kF32);
  file.AddTensor("blk.0.ffn_down.weight", {width, width}, type);
  file.AddTensor("blk.0.ffn_gate.weight", {width, width}, type);
  file.AddTensor("blk.0.ffn_up.weight", {width, width}, type);
  file.AddTensor("blk.0.ffn_norm.weight", {width}, DType::kF32);
  file.AddTensor("blk.0.attn_k.weight", {width, width / 2}, type);
  file.AddTensor("blk.0.attn_output.weight", {width, width}, type);
  file.AddTensor("blk.0.attn_q.weight", {width, width}, type);
  file.AddTensor("blk.0.attn_v.weight", {width, width / 2}, type);
  file.AddTensor("output_norm.weight", {width}, DType::kF32);
  return file;
}

// The same with a vocabulary of eight tokens and a chat template.
inline GgufBuilder TinyLlamaFileWithVocabulary() {
  GgufBuilder file = TinyLlamaFile();
  file.SetString("tokenizer.ggml.model", "gpt2");
  file.SetString("tokenizer.ggml.pre", "smollm");
  file.SetStrings("tokenizer.ggml.tokens", {"<s>", "</s>", "a", "b", "c", "ab", "abc", "<pad>"});
  file.SetArray<int32_t>("tokenizer.ggml.token_type", 5, {3, 3, 1, 1, 1, 1, 1, 3});
  file.SetStrings("tokenizer.ggml.merges", {"a b", "ab c"});
  file.SetU32("tokenizer.ggml.bos_token_id", 0);
  file.SetU32("tokenizer.ggml.eos_token_id", 1);
  file.SetBool("tokenizer.ggml.add_bos_token", true);
  file.SetString("tokenizer.chat_template", "{{ messages[0]['content'] }}");
  return file;
}

}  // namespace tandem
