// The GGUF container, versions 2 and 3, little-endian
// (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): metadata and the tensor list, read
// out of bytes that may be hostile. Nothing here knows what the keys mean; engine/model/arch does.
//
// Every count, length and offset is checked against the bytes that are left before it is used, and
// memory stays proportional to the file. All views point into the bytes given, which must outlive
// them. Throws Error(kModelFile | kUnsupported), naming the source and the field.
//
//   GgufHeader header = ReadGgufHeader(file.bytes(), path);
//   uint32_t layers = header.metadata.RequireU32("llama.block_count");
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tandem {

inline constexpr uint32_t kGgufDefaultAlignment = 32;

enum class GgufType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};
inline constexpr uint32_t kGgufTypeCount = 13;
const char* ToString(GgufType type);  // "uint32", ...

// A metadata value as it lies in the file.
struct GgufValue {
  GgufType type = GgufType::kUint8;     // kArray: see element
  GgufType element = GgufType::kUint8;  // of an array; otherwise equal to type
  uint64_t count = 1;                   // elements of an array; otherwise 1
  std::span<const std::byte> payload;   // the elements, back to back
};

// The key-value part. Integers are accepted in any width that holds the value.
class GgufMetadata {
 public:
  explicit GgufMetadata(std::string source) : source_(std::move(source)) {}

  // False when the key is there already.
  bool Insert(std::string_view key, const GgufValue& value);

  bool Has(std::string_view key) const { return values_.contains(key); }
  size_t size() const { return values_.size(); }
  const std::string& source() const { return source_; }

  uint32_t RequireU32(std::string_view key) const;
  float RequireF32(std::string_view key) const;
  std::string RequireString(std::string_view key) const;
  std::optional<uint32_t> FindU32(std::string_view key) const;
  std::optional<float> FindF32(std::string_view key) const;
  std::optional<bool> FindBool(std::string_view key) const;
  std::optional<std::string> FindString(std::string_view key) const;
  // Arrays; empty when the key is absent.
  std::vector<std::string> Strings(std::string_view key) const;
  std::vector<int32_t> Int32s(std::string_view key) const;
  std::vector<float> Floats(std::string_view key) const;
  // The value itself, or null.
  const GgufValue* Find(std::string_view key) const;

  // Error(kModelFile): "gguf: SOURCE: KEY: PROBLEM".
  [[noreturn]] void Refuse(std::string_view key, const std::string& problem) const;

 private:
  std::string source_;
  std::unordered_map<std::string_view, GgufValue> values_;
};

// One entry of the tensor list. dims[0] varies fastest: it is the length of a row.
struct GgufTensor {
  std::string_view name;
  std::array<uint64_t, 4> dims = {1, 1, 1, 1};
  uint32_t ggml_type = 0;
  uint64_t offset = 0;  // from data_begin
};

struct GgufHeader {
  uint32_t version = 0;
  uint32_t alignment = kGgufDefaultAlignment;
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;
  uint64_t data_begin = 0;  // file offset of the tensor data
};

GgufHeader ReadGgufHeader(std::span<const std::byte> file, const std::string& source);

// Text from a file made safe for a message: in quotes, printable and short.
std::string QuoteForMessage(std::string_view text);

// ggml's name of a tensor type, "Q5_K"; "unknown" for a number without a name.
const char* GgmlTypeName(uint32_t ggml_type);

}  // namespace tandem
