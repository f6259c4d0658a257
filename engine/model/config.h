// The numbers that define a Llama-like decoder, as a model file's metadata states them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tandem {

// Frequencies stretched for a context longer than the one trained on; engine/model/rope.h has the
// formula.
struct YarnScaling {
  float factor = 1.0f;            // how much longer
  uint32_t original_context = 0;  // tokens the model was trained for before
  float beta_fast = 32.0f;        // pairs that turn more often than this in it stay as they are
  float beta_slow = 1.0f;         // pairs that turn less often are slowed down by `factor`
  bool operator==(const YarnScaling&) const = default;
};
inline constexpr float kMaxRopeFactor = 1e6f;

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
  std::optional<YarnScaling> yarn;
  std::vector<float> rope_factors;  // (rope_dim / 2) divide the frequencies (Llama 3); or empty
  float rope_magnitude = 1.0f;      // q and k are multiplied by it, beside what YaRN says
  uint32_t sliding_window = 0;  // positions a token sees, itself included, in all layers; 0: all
  float norm_eps = 1e-5f;
  bool tied_embedding = false;  // the output matrix is the token embedding
  // Llama GGUF files hold q and k rows permuted so that rotation pairs (2i, 2i+1) are adjacent.
  bool rope_interleaved = true;
  bool attention_bias = false;  // q, k and v have biases
  bool qk_norm = false;         // heads of q and k are normalised before they rotate

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
