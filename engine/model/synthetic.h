// Synthetic models: any Llama-like shape with seeded random weights of any supported type. They fill
// the size axis of sweeps and the corners of tests. The same specification gives the same bytes on
// every machine.
//
//   SyntheticSpec spec{.config = TinyConfig(), .type = DType::kQ4_1, .seed = 7};
//   std::shared_ptr<const Model> model = MakeSyntheticModel(spec);
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "engine/model/model.h"

namespace tandem {

struct SyntheticSpec {
  ModelConfig config;
  DType type = DType::kF32;           // of the weight matrices; norms are f32
  DType embedding_type = DType::kF32; // of the embedding (and the output, untied)
  uint64_t seed = 1;
  // Share one layer's bytes between all layers: large shapes then cost little memory, and each
  // layer still streams its bytes. Never for logits that are compared.
  bool shared_layers = false;
};

// Weights are uniform with variance 1/fan_in, so activations stay of order one at any depth.
std::shared_ptr<const Model> MakeSyntheticModel(const SyntheticSpec& spec);

// The same shapes without data: for planning and prediction of any size.
std::shared_ptr<const Model> MakeShapeOnlyModel(const SyntheticSpec& spec);

// Writes `spec` as a GGUF file (version 3) that LoadGguf reads back to identical weights.
// The file appears whole or not at all. Throws Error(kIo).
void WriteSyntheticGguf(const SyntheticSpec& spec, const std::string& path);

// "h=256,l=4,heads=8,kv=2,hd=32,ffn=512,vocab=1000,ctx=2048,type=q4_1,embed=q8_0,tied=1,seed=7":
// the form users type after "synthetic:". Unknown or missing keys: Error(kInvalidArgument).
SyntheticSpec ParseSyntheticSpec(std::string_view text);
std::string FormatSyntheticSpec(const SyntheticSpec& spec);

}  // namespace tandem
