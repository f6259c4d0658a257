// From a model directory's files to a Model.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"
#include "engine/base/error.h"
#include "engine/base/sha256.h"
#include "engine/model/assemble.h"
#include "engine/model/gguf.h"
#include "engine/model/huggingface/config.h"
#include "engine/model/huggingface/directory.h"
#include "engine/model/huggingface/tokenizer_json.h"
#include "engine/model/tensor_table.h"

namespace tandem {
namespace {

// The files, and what had to be copied out of them.
struct Memory {
  std::shared_ptr<const void> files;
  std::vector<std::unique_ptr<std::byte[]>> copies;  // new[] aligns for every element type
};

// Norms and biases are kept as F32 by kernels; matrices stay as they are stored, unless the file
// puts them where their elements would be misaligned (the format promises no alignment).
TensorView Settle(const TensorView& view, Memory& memory) {
  const uint64_t elems = view.rows * view.cols;
  const bool widen = view.rows == 1 && view.type != DType::kF32;
  const bool aligned = reinterpret_cast<uintptr_t>(view.data) % Traits(view.type).block_bytes == 0;
  if (aligned && !widen) {
    return view;
  }
  TensorView copy = view;
  copy.type = widen ? DType::kF32 : view.type;
  auto bytes = std::make_unique<std::byte[]>(elems * Traits(copy.type).block_bytes);
  if (widen) {
    // The source may be misaligned: through an aligned copy of it.
    std::vector<std::byte> aligned_row(view.data, view.data + view.bytes());
    DequantizeRow(view.type, aligned_row.data(), reinterpret_cast<float*>(bytes.get()), elems);
  } else {
    std::memcpy(bytes.get(), view.data, view.bytes());
  }
  copy.data = bytes.get();
  memory.copies.push_back(std::move(bytes));
  return copy;
}

// Llama's attention_bias gives attention's output a bias too. Without one that is not zero nothing
// is lost.
bool AddsNothing(const std::string& name, const TensorView& view) {
  return IsOutputBias(name) && std::all_of(view.data, view.data + view.bytes(),
                                           [](std::byte b) { return b == std::byte{0}; });
}

void AddTensors(const std::vector<WeightFile>& weights, Memory& memory, TensorTable& tensors) {
  for (const WeightFile& file : weights) {
    for (const SafetensorsTensor& tensor : file.header.tensors) {
      if (IsDerivedTensor(tensor.name)) {
        continue;
      }
      const TensorView view = LocateSafetensor(tensor, file.header, file.bytes, file.path);
      if (!AddsNothing(tensor.name, view)) {
        tensors.Add(tensor.name, Settle(view, memory));
      }
    }
  }
}

// transformers reads biases of Llama and Mistral only where config.json says attention_bias, and
// makes them up where they are missing.
void CheckBiases(const JsonFields& config, const ModelConfig& loaded) {
  static constexpr char kKey[] = "attention_bias";
  const bool wanted = config.FindBool(kKey).value_or(false);
  if (wanted && !loaded.attention_bias) {
    config.Refuse(kKey, "true, but the layers have no 'self_attn.q_proj.bias'");
  }
  if (!wanted && loaded.attention_bias && loaded.architecture == "llama") {
    config.Refuse(kKey, "not true, but the layers have 'self_attn.q_proj.bias'");
  }
}

// A stored output matrix that is not the embedding contradicts tie_word_embeddings; readers differ
// in which they believe.
void CheckTied(const JsonFields& config, const TensorView& stored, const TensorView& embedding) {
  if (stored.type != embedding.type ||
      std::memcmp(stored.data, embedding.data, embedding.bytes()) != 0) {
    config.Refuse("tie_word_embeddings",
                  "true, but 'lm_head.weight' is there and differs from "
                  "'model.embed_tokens.weight' (want false, or one of them alone)");
  }
}

}  // namespace

std::shared_ptr<const Model> LoadHuggingFace(HuggingFaceFiles files) {
  static constexpr char kConfig[] = "config.json";
  const std::optional<nlohmann::json> document = files.Json(kConfig, JsonLimits{});
  const std::string config_path = files.PathOf(kConfig);
  if (!document) {
    Fail(ErrorCode::kModelFile, fmt::format("model: {}: missing", config_path));
  }
  ModelParts parts;
  parts.source = files.source;
  const JsonFields config(*document, config_path);
  parts.config = ReadHuggingFaceConfig(config);
  const Architecture* arch = FindArchitecture(parts.config.architecture);
  Check(arch != nullptr, "huggingface: a family without a table");

  const std::vector<WeightFile> weights = ReadWeightFiles(files);
  auto memory = std::make_shared<Memory>();
  memory->files = files.owner;
  TensorTable tensors("safetensors", files.source, HuggingFaceTensorName);
  AddTensors(weights, *memory, tensors);
  std::optional<TensorView> stored_output;
  if (tensors.Has(arch->output)) {
    if (parts.config.tied_embedding) {
      stored_output = tensors.Take(arch->output, parts.config.vocab, parts.config.hidden);
    }
  } else if (!parts.config.tied_embedding) {
    Fail(ErrorCode::kModelFile,
         fmt::format("safetensors: {}: tensor '{}' missing (want it, or tie_word_embeddings in "
                     "config.json)",
                     files.source, HuggingFaceTensorName(arch->output)));
  }
  TakeWeights(*arch, tensors, parts);
  CheckBiases(config, parts.config);
  if (stored_output) {
    CheckTied(config, *stored_output, parts.token_embedding);
  }
  parts.memory = memory;

  if (std::optional<VocabularyData> data = ReadHuggingFaceVocabulary(files, parts.config.vocab)) {
    parts.tokenizer = MakeTokenizer(*std::move(data), files.source);
  }
  parts.chat_template = ReadHuggingFaceChatTemplate(files);

  // The configuration is part of what these weights mean.
  std::vector<std::span<const std::byte>> pieces{files.content.at(kConfig)};
  for (const WeightFile& file : weights) {
    pieces.push_back(file.bytes);
  }
  parts.hash = [pieces] { return Sha256Hex(pieces); };
  return MakeStoredModel(std::move(parts));
}

}  // namespace tandem
