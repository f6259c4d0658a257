// Synthetic models: any shape of any architecture with seeded random weights of any supported type.
// They fill the size axis of sweeps and the corners of tests. The same specification gives the same
// bytes on every machine.
//
//   SyntheticSpec spec{.config = TinyConfig(), .type = DType::kQ4_1, .seed = 7};
//   std::shared_ptr<const Model> model = MakeSyntheticModel(spec);
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "engine/model/model.h"
#include "engine/model/rope.h"

namespace tandem {

struct SyntheticSpec {
  ModelConfig config;
  DType type = DType::kF32;            // of the weight matrices; norms are f32
  DType embedding_type = DType::kF32;  // of the embedding (and the output, untied)
  uint64_t seed = 1;
  // Share one layer's bytes between all layers: large shapes then cost little memory, and each
  // layer still streams its bytes. Never for logits that are compared.
  bool shared_layers = false;
  // Where config.rope_factors come from, for the text form; null: they are not there.
  std::optional<Llama3Scaling> llama3;
};

// A shape for tests: 2 layers, hidden 64, 4 heads of 16 over 2 KV heads, FFN 96, vocabulary 320,
// context 256, tied. Every type fits it, and no block has a power of two of units.
ModelConfig TinyConfig();

// What is wrong with this specification; empty when nothing is.
std::string SyntheticProblem(const SyntheticSpec& spec);

// Throw Error(kInvalidArgument) when SyntheticProblem has something to say. weight_bytes() counts
// every layer, shared or not.
//
// Weights are uniform with variance 1/fan_in, so activations stay of order one at any depth;
// embeddings are uniform with variance 1, norms are 1 +- 0.1, biases +- 0.5. A tensor's values
// depend on the seed, its place in the model and the element's index alone. Refuses a model larger
// than this machine's memory.
// `progress`, if any, is told on the caller's thread how many bytes are there, of how many.
using FillProgress = std::function<void(Bytes done, Bytes all)>;
std::shared_ptr<const Model> MakeSyntheticModel(const SyntheticSpec& spec,
                                                const FillProgress& progress = {});

// The same shapes without data: for planning and prediction of any size.
std::shared_ptr<const Model> MakeShapeOnlyModel(const SyntheticSpec& spec);

// Writes `spec` as a GGUF file (version 3) that LoadGguf reads back to identical weights.
// The file appears whole or not at all. Throws Error(kIo).
void WriteSyntheticGguf(const SyntheticSpec& spec, const std::string& path);

// "h=256,l=4,heads=8,kv=2,hd=32,ffn=512,vocab=1000,ctx=2048,type=q4_1,embed=q8_0,tied=1,seed=7":
// the form users type after "synthetic:". Unknown or missing keys: Error(kInvalidArgument).
//   h, l, heads    hidden width, layers, query heads; these three must be given
//   kv, hd, ffn    KV heads (heads), head width (h/heads), FFN width (4h, rounded up to 32s)
//   vocab, ctx     vocabulary (1024), context (2048)
//   type, embed    weight types (f32; embed: q8_0 when type is quantised, else type)
//   tied, seed     output is the embedding (1), seed (1)
//   eps, theta     norm epsilon (1e-5), rotary base (10000)
//   rope, scale    rotary dimensions (hd), positions are divided by scale (1)
//   interleaved    rotation pairs are (2i, 2i+1) (1 for llama, 0 for qwen)
//   shared         one layer's bytes serve all layers (0)
//   arch, bias     architecture (llama), biases of q, k and v (0; 1 for qwen2)
//   window         positions a token sees (0: all)
//   yarn, orig     YaRN's factor, and its original context, which must be given with it
//   fast, slow     YaRN's betas (32, 1)
//   attn           what q and k are multiplied by beside what YaRN says (1)
//   llama3, orig   Llama 3's rotary factor, and its original context, which must be given with it
//   low, high      its frequency factors (1, 4)
// Format leaves out what is at its default from "eps" on; Parse(Format(spec)) is spec.
SyntheticSpec ParseSyntheticSpec(std::string_view text);
std::string FormatSyntheticSpec(const SyntheticSpec& spec);

}  // namespace tandem
