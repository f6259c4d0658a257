// Files of the families for tests: the tiny llama of gguf_builder.h under another name, and what
// every family's loader must do with it.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/model/gguf_load.h"
#include "engine/model/model.h"
#include "tests/model/gguf_builder.h"
#include "tests/model/gguf_exercise.h"

namespace tandem {

// Hidden 64, 2 heads of 32 over 1 KV head; keys and general.architecture renamed.
inline GgufBuilder TinyFamilyFile(const std::string& arch) {
  GgufBuilder file = TinyLlamaFile();
  file.SetString("general.architecture", arch);
  for (GgufBuilder::Key& key : file.keys) {
    if (key.name.starts_with("llama.")) key.name = arch + key.name.substr(5);
  }
  return file;
}

// A vector tensor of these values.
inline void AddFloats(GgufBuilder& file, const std::string& name,
                      const std::vector<float>& values) {
  file.AddTensor(name, {values.size()}, DType::kF32);
  std::string& data = file.tensors.back().data;
  std::memcpy(data.data(), values.data(), data.size());
}

inline void AddBiases(GgufBuilder& file, const std::string& layer = "blk.0.") {
  AddFloats(file, layer + "attn_q.bias", std::vector<float>(64, 0.5f));
  AddFloats(file, layer + "attn_k.bias", std::vector<float>(32, 0.25f));
  AddFloats(file, layer + "attn_v.bias", std::vector<float>(32, -1.0f));
}

inline void AddHeadNorms(GgufBuilder& file) {
  AddFloats(file, "blk.0.attn_q_norm.weight", std::vector<float>(32, 1.5f));
  AddFloats(file, "blk.0.attn_k_norm.weight", std::vector<float>(32, 0.75f));
}

inline std::shared_ptr<const Model> LoadFile(const GgufBuilder& file) {
  auto bytes = std::make_shared<std::string>(file.Build());
  return LoadGgufBytes(std::as_bytes(std::span(*bytes)), bytes, "family.gguf");
}

// A good file with one thing wrong: the code, and a message that names the field.
inline void ExpectFileRefused(GgufBuilder file, const std::function<void(GgufBuilder&)>& spoil,
                              ErrorCode code, const std::string& field) {
  spoil(file);
  try {
    LoadFile(file);
    ADD_FAILURE() << "loaded, but should name " << field;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find("family.gguf"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(field), std::string::npos) << error.what();
  }
}

}  // namespace tandem
