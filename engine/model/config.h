// The numbers that define a Llama-like decoder, as a model file's metadata states them.
#pragma once

#include <cstdint>
#include <string>

namespace tandem {

struct ModelConfig {
  std::string architecture = "llama";
  std::string name;  // for people: "SmolLM2 135M Instruct"
  uint32_t n_layers = 0;
  uint32_t hidden = 0;      // residual width h
  uint32_t n_heads = 0;     // query heads
  uint32_t n_kv_heads = 0;  // n_heads is a multiple of it (GQA)
  uint32_t head_dim = 0;
  uint32_t ffn = 0;  // width of the gated MLP
  uint32_t vocab = 0;
  uint32_t context = 0;   // longest sequence the model was made for
  uint32_t rope_dim = 0;  // leading dims of a head that rotate, usually head_dim
  float rope_theta = 10000.0f;
  float rope_scale = 1.0f;  // positions are divided by it (linear scaling)
  float norm_eps = 1e-5f;
  bool tied_embedding = false;  // the output matrix is the token embedding
  // Llama GGUF files hold q and k rows permuted so that rotation pairs (2i, 2i+1) are adjacent.
  bool rope_interleaved = true;

  uint32_t group() const { return n_heads / n_kv_heads; }  // query heads per KV head
  uint32_t q_dim() const { return n_heads * head_dim; }
  uint32_t kv_dim() const { return n_kv_heads * head_dim; }
};

// What is wrong with these numbers (zero, absurdly large, heads that do not divide), naming the
// field; empty when nothing is. A config without problems cannot overflow 64-bit sizes.
std::string ConfigProblem(const ModelConfig& config);

// Throws Error(kModelFile) with ConfigProblem's text when there is one.
void ValidateConfig(const ModelConfig& config, const std::string& source);

}  // namespace tandem
