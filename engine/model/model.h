// A loaded model: its configuration, its weights as views into memory that the Model owns (a mapped
// file, or generated), its tokenizer if it has one, and its block graph.
//
// Immutable after loading; any thread may read it.
//
//   std::shared_ptr<const Model> model = LoadGguf("smollm2.gguf");
//   TensorView wq = model->layers()[0].wq;   // (n_heads * head_dim, hidden)
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/units.h"
#include "engine/model/block_graph.h"
#include "engine/model/config.h"
#include "engine/model/dtype.h"

namespace tandem {

class Tokenizer;

// A matrix (rows, cols) in row-major order, rows being outputs; a vector has one row.
// `data` may be null in a model that has shapes only (see Model::has_data).
struct TensorView {
  const std::byte* data = nullptr;
  DType type = DType::kF32;
  uint64_t rows = 0;
  uint64_t cols = 0;

  uint64_t row_bytes() const { return RowBytes(type, cols); }
  uint64_t bytes() const { return rows * row_bytes(); }
  const std::byte* row(uint64_t r) const { return data + r * row_bytes(); }
};

// One decoder layer. Shapes: h hidden, q = n_heads*head_dim, k = n_kv_heads*head_dim, f ffn.
struct LayerWeights {
  TensorView attn_norm;       // (1, h) f32
  TensorView wq;              // (q, h)
  TensorView wk;              // (k, h)
  TensorView wv;              // (k, h)
  TensorView wo;              // (h, q)
  TensorView bq, bk, bv;      // (1, q), (1, k), (1, k) f32 biases; no rows: none
  TensorView q_norm, k_norm;  // (1, head_dim) f32, of each head; no rows: none
  TensorView ffn_norm;        // (1, h) f32
  TensorView w_gate;          // (f, h)
  TensorView w_up;            // (f, h)
  TensorView w_down;          // (h, f)
};

class Model {
 public:
  virtual ~Model() = default;

  virtual const ModelConfig& config() const = 0;
  virtual const std::vector<LayerWeights>& layers() const = 0;
  virtual const TensorView& token_embedding() const = 0;  // (vocab, h)
  virtual const TensorView& output_norm() const = 0;      // (1, h) f32
  virtual const TensorView& output() const = 0;           // (vocab, h); == embedding when tied
  virtual const BlockGraph& blocks() const = 0;

  // False for a shape-only model: enough to plan, price and predict, not to run.
  virtual bool has_data() const = 0;
  // Null when the model has no vocabulary (synthetic models): prompts are then token ids.
  virtual const Tokenizer* tokenizer() const = 0;
  // The chat template's source text; empty when the file has none.
  virtual const std::string& chat_template() const = 0;

  // Where it came from, for messages and records: a path, or "synthetic:...".
  virtual const std::string& source() const = 0;
  // Size of all weights as stored, tied weights once.
  virtual Bytes weight_bytes() const = 0;
  // A name for these exact weights in records: the sha256 of the file, or of the synthetic
  // specification. Computed on first use, which reads the whole file.
  virtual const std::string& weights_hash() const = 0;
};

// Opens a GGUF file (version 2 or 3) by mmap. Every count, offset, size and type is checked against
// the real file before use. Throws Error(kModelFile | kUnsupported).
std::shared_ptr<const Model> LoadGguf(const std::string& path);

}  // namespace tandem
