// Writes GGUF files, version 3. Metadata and the tensor list gather in memory; tensor data is
// copied from the views when the file is written, so the views must live until then.
//
//   GgufWriter writer;
//   writer.AddString("general.architecture", "llama");
//   writer.AddTensor("token_embd.weight", view);
//   writer.WriteTo(path);
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/gguf.h"
#include "engine/model/model.h"

namespace tandem {

class GgufWriter {
 public:
  void AddU32(std::string_view key, uint32_t value);
  void AddF32(std::string_view key, float value);
  void AddString(std::string_view key, std::string_view value);
  // A view of one row becomes a tensor of one dimension.
  void AddTensor(std::string_view name, const TensorView& view);

  // The file appears whole or not at all: it is written beside `path`, synced, and renamed over it.
  // Throws Error(kIo).
  void WriteTo(const std::string& path) const;
  // The same as `count` parts of about as many bytes each, `stem`-00001-of-0000N.gguf; returns
  // their paths. Throws Error(kInvalidArgument) for more parts than tensors.
  std::vector<std::string> WriteParts(const std::string& stem, uint32_t count) const;

 private:
  struct Entry {
    std::string name;
    TensorView view;
  };
  template <typename T>
  void Add(std::string_view key, GgufType type, T value);
  std::string Header(std::span<const Entry> tensors) const;
  void Write(std::span<const Entry> tensors, const std::string& path) const;

  std::string metadata_;
  uint64_t keys_ = 0;
  std::vector<Entry> tensors_;
};

// Writes a model with data, but not its tokenizer. Throws Error(kIo | kUnsupported).
void WriteGguf(const Model& model, const std::string& path);
// As `count` parts named after `path`, "dir/tiny.gguf" or "dir/tiny"; returns their paths.
std::vector<std::string> WriteGgufParts(const Model& model, const std::string& path,
                                        uint32_t count);

}  // namespace tandem
