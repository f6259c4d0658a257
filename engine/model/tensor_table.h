// The tensors of a model's files, handed out by name. What nobody takes is an error: a tensor that
// is not used means arithmetic that is not done.
//
// Tensors are asked for by the names of the architecture's table, and kept and spoken of by the
// names that the file has; `spell` leads from one to the other. Views are not owned.
//
//   TensorTable tensors("gguf", path);
//   tensors.Add("output_norm.weight", view);
//   TensorView norm = tensors.TakeVector("output_norm.weight", hidden);
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "engine/model/model.h"

namespace tandem {

class TensorTable {
 public:
  using Spelling = std::function<std::string(std::string_view)>;

  // `format` ("gguf") and `source` open every message. Without `spell` the file's names are the
  // table's.
  TensorTable(std::string format, std::string source, Spelling spell = {});

  const std::string& format() const { return format_; }
  const std::string& source() const { return source_; }

  // Throws Error(kModelFile) for a name that is there already. `name` is the file's.
  void Add(std::string_view name, const TensorView& view);
  // Forgets a tensor that the model does without.
  void Drop(std::string_view name);

  bool Has(std::string_view name) const;
  // At most 2^32 - 1; 0 when there is no such tensor.
  uint32_t RowsOf(std::string_view name) const;
  // Hands a tensor out, once. Throws Error(kModelFile) when it is missing or has another shape.
  TensorView Take(std::string_view name, uint64_t rows, uint64_t cols);
  // The same for norms, biases and rotary factors, vectors of F32; Error(kUnsupported) for another
  // type.
  TensorView TakeVector(std::string_view name, uint64_t width);

  // Throws Error(kUnsupported) when a tensor is left; `reason` says why one by its name.
  void RefuseRest(const std::function<const char*(std::string_view)>& reason) const;

 private:
  [[noreturn]] void Refuse(std::string_view name, const std::string& problem) const;
  std::string Spell(std::string_view name) const;

  std::string format_;
  std::string source_;
  Spelling spell_;
  std::map<std::string, TensorView, std::less<>> views_;  // ordered, so that messages are stable
};

}  // namespace tandem
