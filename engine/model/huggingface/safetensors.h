// The safetensors container (https://github.com/huggingface/safetensors, "Format"): a length, a
// JSON header that names every tensor's type, shape and bytes, and the bytes. Read out of bytes
// that may be hostile: nothing is used before it is checked against the file. Views point into the
// bytes given. Throws Error(kModelFile | kUnsupported), naming source and tensor.
//
//   SafetensorsHeader header = ReadSafetensorsHeader(file.bytes(), path);
//   TensorView view = LocateSafetensor(header.tensors[0], header, file.bytes(), path);
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/model.h"

namespace tandem {

struct SafetensorsTensor {
  std::string name;
  std::string dtype;            // "BF16"; may be one that tandem does not know
  std::vector<uint64_t> shape;  // outermost first; empty for a scalar
  uint64_t begin = 0;           // its bytes, from data_begin
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsTensor> tensors;  // in the order of their bytes
  uint64_t data_begin = 0;                 // file offset of the tensor data
};

// Every tensor's range lies in the file, matches its type and shape (where the type is known), and
// belongs to it alone; together they cover the data, as the format wants.
SafetensorsHeader ReadSafetensorsHeader(std::span<const std::byte> file, const std::string& source);

// A matrix, or a vector as one row.
TensorView LocateSafetensor(const SafetensorsTensor& tensor, const SafetensorsHeader& header,
                            std::span<const std::byte> file, const std::string& source);

}  // namespace tandem
