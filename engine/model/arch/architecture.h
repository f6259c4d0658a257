// What differs between model families, as a table: the metadata keys that hold the configuration,
// and the names and shapes of the tensors. Adding a family is one file here and its line in
// architecture.cc and CMake; loader, writer and generator read the tables and know no names.
//
//   const Architecture* arch = FindArchitecture("llama");
//   ModelConfig config = arch->read_config(header.metadata);
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/gguf.h"
#include "engine/model/gguf_writer.h"
#include "engine/model/model.h"

namespace tandem {

// A dimension of a tensor, by what it counts.
enum class Extent : uint8_t { kOne, kHidden, kQuery, kKeyValue, kHeadDim, kFfn, kVocab };
uint64_t ExtentOf(Extent extent, const ModelConfig& config);

// Norms and biases are vectors, stored as f32 always.
enum class TensorRole : uint8_t { kMatrix, kNorm, kBias };

// A tensor that every layer has.
struct LayerTensor {
  const char* name;  // after the layer's prefix: "attn_q.weight"
  TensorView LayerWeights::* slot;
  Extent rows;
  Extent cols;
  TensorRole role = TensorRole::kMatrix;
  // The part of the configuration that says whether there is such a tensor; null: there is.
  bool ModelConfig::* when = nullptr;

  bool IsVector() const { return role != TensorRole::kMatrix; }
  bool IsIn(const ModelConfig& config) const { return when == nullptr || config.*when; }
};

struct Architecture {
  const char* name;  // general.architecture
  // What all models of the family have. What is false here and in the table of layer tensors may be
  // there or not: the file's tensors say.
  bool rope_interleaved = false;
  bool attention_bias = false;
  bool qk_norm = false;
  // Reads the configuration; leaves vocab 0 when the file does not state it, and tied_embedding
  // false. Throws Error(kModelFile | kUnsupported) naming the key.
  ModelConfig (*read_config)(const Architecture& arch, const GgufMetadata& metadata);
  void (*write_config)(const Architecture& arch, const ModelConfig& config, GgufWriter& writer);
  std::string (*layer_prefix)(LayerIndex layer);  // "blk.3."
  std::span<const LayerTensor> layer_tensors;
  const char* token_embedding;         // (vocab, hidden)
  const char* output_norm;             // (1, hidden) f32
  const char* output;                  // (vocab, hidden); absent when tied
  const char* rope_factors = nullptr;  // (1, rope_dim / 2) f32, may be absent; null: never there
  // Why a tensor outside the table is not supported; a general reason when it has none of its own.
  const char* (*reason_unsupported)(std::string_view tensor_name);
};

// A configuration without numbers: the family's name and what all its models have.
ModelConfig FamilyConfig(const Architecture& arch);

// What a model of the family cannot be: biases or head norms that its layers have no tensor for, or
// lack. Empty when nothing is wrong.
std::string FamilyProblem(const Architecture& arch, const ModelConfig& config);

// Null when there is none of that name.
const Architecture* FindArchitecture(std::string_view name);
std::vector<std::string> ArchitectureNames();

}  // namespace tandem
