// The walk over a GGUF file's bytes: magic, version, counts, key-value pairs, tensor list.
#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <unordered_set>

#include "engine/base/error.h"
#include "engine/model/gguf.h"

namespace tandem {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF files are read in place");

constexpr uint64_t kMaxKeys = 1u << 16;
constexpr uint64_t kMaxTensors = 1u << 17;
constexpr uint64_t kMaxKeyLength = 65535;  // the format's own limit
constexpr uint64_t kMaxNameLength = 63;    // ggml's limit on tensor names
constexpr uint64_t kMaxString = 1u << 30;
constexpr uint32_t kMaxAlignment = 1u << 20;
constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
// The shortest possible entries, to refuse counts that the file cannot hold.
constexpr uint64_t kLeastKeyBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kLeastTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;

// Bytes of one element; 0 for strings and arrays, which have no fixed size.
uint64_t FixedSize(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

// A position in the file that cannot leave it.
class Cursor {
 public:
  Cursor(std::span<const std::byte> file, const std::string& source)
      : file_(file), source_(source) {}

  const std::string& source() const { return source_; }
  uint64_t at() const { return at_; }
  uint64_t left() const { return file_.size() - at_; }

  [[noreturn]] void Refuse(std::string_view field, const std::string& problem) const {
    Fail(ErrorCode::kModelFile,
         fmt::format("gguf: {}: {} (at byte {}): {}", source_, field, at_, problem));
  }

  std::span<const std::byte> Take(uint64_t size, std::string_view field) {
    if (size > left()) {
      Refuse(field, fmt::format("needs {} bytes, but {} are left of {}: the file is truncated or "
                                "corrupt",
                                size, left(), file_.size()));
    }
    const auto taken = file_.subspan(at_, size);
    at_ += size;
    return taken;
  }

  template <typename T>
  T Read(std::string_view field) {
    T value;
    std::memcpy(&value, Take(sizeof(T), field).data(), sizeof(T));
    return value;
  }

  std::string_view ReadString(std::string_view field, uint64_t most) {
    const auto length = Read<uint64_t>(field);
    if (length > most) {
      Refuse(field, fmt::format("string of {} bytes (want at most {})", length, most));
    }
    const auto bytes = Take(length, field);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> file_;
  const std::string& source_;
  uint64_t at_ = 0;
};

GgufType ReadType(Cursor& cursor, std::string_view field) {
  const auto type = cursor.Read<uint32_t>(field);
  if (type >= kGgufTypeCount) {
    cursor.Refuse(field, fmt::format("value type {} (want 0 to {})", type, kGgufTypeCount - 1));
  }
  return static_cast<GgufType>(type);
}

GgufValue ReadArray(Cursor& cursor, std::span<const std::byte> file, std::string_view field) {
  GgufValue value{.type = GgufType::kArray};
  value.element = ReadType(cursor, field);
  value.count = cursor.Read<uint64_t>(field);
  if (value.element == GgufType::kArray) {
    cursor.Refuse(field, "array of arrays (want an array of plain values or strings)");
  }
  const uint64_t size = FixedSize(value.element);
  const uint64_t least = size == 0 ? sizeof(uint64_t) : size;
  if (value.count > cursor.left() / least) {
    cursor.Refuse(field, fmt::format("array of {} {}, but only {} bytes are left", value.count,
                                     ToString(value.element), cursor.left()));
  }
  if (size != 0) {
    value.payload = cursor.Take(value.count * size, field);
    return value;
  }
  const uint64_t begin = cursor.at();
  for (uint64_t i = 0; i < value.count; ++i) {
    cursor.ReadString(field, kMaxString);
  }
  value.payload = file.subspan(begin, cursor.at() - begin);
  return value;
}

GgufValue ReadValue(Cursor& cursor, std::span<const std::byte> file, std::string_view field) {
  GgufValue value;
  value.type = ReadType(cursor, field);
  if (value.type == GgufType::kArray) {
    return ReadArray(cursor, file, field);
  }
  value.element = value.type;
  if (value.type == GgufType::kString) {
    const uint64_t begin = cursor.at();
    cursor.ReadString(field, kMaxString);
    value.payload = file.subspan(begin, cursor.at() - begin);
  } else {
    value.payload = cursor.Take(FixedSize(value.type), field);
  }
  return value;
}

void ReadMetadata(Cursor& cursor, std::span<const std::byte> file, uint64_t count,
                  GgufMetadata& metadata) {
  for (uint64_t i = 0; i < count; ++i) {
    const std::string_view key = cursor.ReadString(fmt::format("key {}", i), kMaxKeyLength);
    if (key.empty()) {
      cursor.Refuse(fmt::format("key {}", i), "empty name");
    }
    const std::string field = QuoteForMessage(key);
    if (!metadata.Insert(key, ReadValue(cursor, file, field))) {
      cursor.Refuse(field, "the key appears twice");
    }
  }
}

uint32_t ReadAlignment(const GgufMetadata& metadata) {
  static constexpr std::string_view kKey = "general.alignment";
  const GgufValue* value = metadata.Find(kKey);
  if (value == nullptr) {
    return kGgufDefaultAlignment;
  }
  if (value->type != GgufType::kUint32) {
    metadata.Refuse(kKey, fmt::format("{} (want uint32)", ToString(value->type)));
  }
  const uint32_t alignment = *metadata.FindU32(kKey);
  if (!std::has_single_bit(alignment) || alignment < 8 || alignment > kMaxAlignment) {
    metadata.Refuse(kKey,
                    fmt::format("{} (want a power of two from 8 to {})", alignment, kMaxAlignment));
  }
  return alignment;
}

GgufTensor ReadTensor(Cursor& cursor, uint64_t index) {
  GgufTensor tensor;
  tensor.name = cursor.ReadString(fmt::format("name of tensor {}", index), kMaxNameLength);
  if (tensor.name.empty()) {
    cursor.Refuse(fmt::format("name of tensor {}", index), "empty");
  }
  const std::string field = "tensor " + QuoteForMessage(tensor.name);
  const auto n_dims = cursor.Read<uint32_t>(field);
  if (n_dims == 0 || n_dims > tensor.dims.size()) {
    cursor.Refuse(field, fmt::format("{} dimensions (want 1 to 4)", n_dims));
  }
  int64_t elems = 1;  // signed, as ggml counts elements
  for (uint32_t d = 0; d < n_dims; ++d) {
    tensor.dims[d] = cursor.Read<uint64_t>(field);
    const auto length = static_cast<int64_t>(tensor.dims[d]);
    if (length <= 0 || __builtin_mul_overflow(elems, length, &elems)) {
      cursor.Refuse(field,
                    fmt::format("dimension {} of {}: zero, negative or too large", d, length));
    }
  }
  tensor.ggml_type = cursor.Read<uint32_t>(field);
  tensor.offset = cursor.Read<uint64_t>(field);
  return tensor;
}

uint32_t ReadVersion(Cursor& cursor) {
  if (cursor.Read<uint32_t>("magic") != kMagic) {
    cursor.Refuse("magic", "not a GGUF file (want the letters GGUF first)");
  }
  const auto version = cursor.Read<uint32_t>("version");
  if (version != 0 && (version & 0xffffu) == 0) {
    Fail(ErrorCode::kUnsupported,
         fmt::format(
             "gguf: {}: version {:#010x}: a big-endian file (want little-endian, version 2 or 3)",
             cursor.source(), version));
  }
  if (version != 2 && version != 3) {
    cursor.Refuse("version", fmt::format("{} (want 2 or 3)", version));
  }
  return version;
}

uint64_t ReadCount(Cursor& cursor, std::string_view field, uint64_t most) {
  const auto count = cursor.Read<uint64_t>(field);
  if (count > most) {
    cursor.Refuse(field, fmt::format("{} (want at most {})", count, most));
  }
  return count;
}

}  // namespace

GgufHeader ReadGgufHeader(std::span<const std::byte> file, const std::string& source) {
  Cursor cursor(file, source);
  GgufHeader header{.metadata = GgufMetadata(source)};
  header.version = ReadVersion(cursor);
  const uint64_t n_tensors = ReadCount(cursor, "tensor count", kMaxTensors);
  const uint64_t n_keys = ReadCount(cursor, "key count", kMaxKeys);
  if (n_keys * kLeastKeyBytes + n_tensors * kLeastTensorBytes > cursor.left()) {
    cursor.Refuse("counts",
                  fmt::format("{} keys and {} tensors cannot fit in the {} bytes that are "
                              "left: the file is truncated or corrupt",
                              n_keys, n_tensors, cursor.left()));
  }
  ReadMetadata(cursor, file, n_keys, header.metadata);
  header.alignment = ReadAlignment(header.metadata);

  header.tensors.reserve(n_tensors);
  std::unordered_set<std::string_view> names;
  for (uint64_t i = 0; i < n_tensors; ++i) {
    header.tensors.push_back(ReadTensor(cursor, i));
    if (!names.insert(header.tensors.back().name).second) {
      cursor.Refuse("tensor " + QuoteForMessage(header.tensors.back().name),
                    "the name appears twice");
    }
  }
  const uint64_t mask = header.alignment - 1;
  header.data_begin = (cursor.at() + mask) & ~mask;
  return header;
}

}  // namespace tandem
