#include "engine/model/huggingface/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "engine/base/error.h"
#include "engine/model/gguf.h"
#include "engine/model/huggingface/bounded_json.h"

namespace tandem {
namespace {

using nlohmann::json;

// The format's own limit on the header is 100 MB; a name, a type, a shape and two offsets are at
// most 10 values.
constexpr uint64_t kMaxTensors = 1u << 17;
constexpr JsonLimits kHeaderLimits = {.bytes = 100'000'000, .depth = 8, .values = kMaxTensors * 10};

struct ElementType {
  const char* name;
  uint64_t bytes;
  std::optional<DType> type;
};
constexpr ElementType kElementTypes[] = {
    {"F32", 4, DType::kF32},     {"F16", 2, DType::kF16},      {"BF16", 2, DType::kBF16},
    {"F64", 8, std::nullopt},    {"I64", 8, std::nullopt},     {"I32", 4, std::nullopt},
    {"I16", 2, std::nullopt},    {"I8", 1, std::nullopt},      {"U64", 8, std::nullopt},
    {"U32", 4, std::nullopt},    {"U16", 2, std::nullopt},     {"U8", 1, std::nullopt},
    {"BOOL", 1, std::nullopt},   {"F8_E4M3", 1, std::nullopt}, {"F8_E5M2", 1, std::nullopt},
    {"F8_E8M0", 1, std::nullopt}};

const ElementType* FindElementType(std::string_view name) {
  const auto* it = std::find_if(std::begin(kElementTypes), std::end(kElementTypes),
                                [&](const ElementType& type) { return type.name == name; });
  return it == std::end(kElementTypes) ? nullptr : it;
}

[[noreturn]] void Refuse(const std::string& source, const std::string& problem) {
  Fail(ErrorCode::kModelFile, fmt::format("safetensors: {}: {}", source, problem));
}

[[noreturn]] void RefuseTensor(const std::string& source, std::string_view name,
                               const std::string& problem) {
  Refuse(source, fmt::format("tensor {}: {}", QuoteForMessage(name), problem));
}

std::vector<uint64_t> ReadNumbers(const json& value, const std::string& source,
                                  std::string_view name, const char* key) {
  const bool numbers =
      value.is_array() &&
      std::all_of(value.begin(), value.end(), [](const json& n) { return n.is_number_unsigned(); });
  if (!numbers) {
    RefuseTensor(source, name, fmt::format("{} (want an array of unsigned numbers)", key));
  }
  return value.get<std::vector<uint64_t>>();
}

// Bytes that a shape takes; empty where the product overflows.
std::optional<uint64_t> SizeOf(const std::vector<uint64_t>& shape, uint64_t element_bytes) {
  uint64_t bytes = element_bytes;
  for (const uint64_t length : shape) {
    if (__builtin_mul_overflow(bytes, length, &bytes)) {
      return std::nullopt;
    }
  }
  return bytes;
}

SafetensorsTensor ReadTensor(const std::string& name, const json& entry, uint64_t available,
                             const std::string& source) {
  const auto member = [&](const char* key) -> const json& {
    if (!entry.is_object() || !entry.contains(key)) {
      RefuseTensor(source, name, fmt::format("{} is missing", key));
    }
    return entry.at(key);
  };
  SafetensorsTensor tensor{.name = name};
  if (!member("dtype").is_string()) {
    RefuseTensor(source, name, "dtype (want a string)");
  }
  tensor.dtype = member("dtype").get<std::string>();
  tensor.shape = ReadNumbers(member("shape"), source, name, "shape");
  const auto offsets = ReadNumbers(member("data_offsets"), source, name, "data_offsets");
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    RefuseTensor(source, name, "data_offsets (want a begin and an end that is not before it)");
  }
  tensor.begin = offsets[0];
  tensor.end = offsets[1];
  if (tensor.end > available) {
    RefuseTensor(source, name,
                 fmt::format("bytes {} to {} of the data, which has {}: the file is truncated or "
                             "corrupt",
                             tensor.begin, tensor.end, available));
  }
  if (const ElementType* type = FindElementType(tensor.dtype)) {
    const std::optional<uint64_t> size = SizeOf(tensor.shape, type->bytes);
    if (size != tensor.end - tensor.begin) {
      RefuseTensor(
          source, name,
          fmt::format("{} bytes (want {} for its shape of {})", tensor.end - tensor.begin,
                      size ? std::to_string(*size) : "more than 64 bits hold", tensor.dtype));
    }
  }
  return tensor;
}

void RequireCover(const std::vector<SafetensorsTensor>& tensors, uint64_t available,
                  const std::string& source) {
  uint64_t covered = 0;
  const SafetensorsTensor* before = nullptr;
  for (const SafetensorsTensor& tensor : tensors) {
    if (tensor.begin < covered) {
      RefuseTensor(source, tensor.name,
                   "shares bytes with tensor " + QuoteForMessage(before->name));
    }
    if (tensor.begin > covered) {
      RefuseTensor(
          source, tensor.name,
          fmt::format("bytes {} to {} before it belong to no tensor", covered, tensor.begin));
    }
    covered = tensor.end;
    before = &tensor;
  }
  if (covered != available) {
    Refuse(source,
           fmt::format("{} bytes of data, of which {} belong to tensors", available, covered));
  }
}

}  // namespace

SafetensorsHeader ReadSafetensorsHeader(std::span<const std::byte> file,
                                        const std::string& source) {
  uint64_t length = 0;
  if (file.size() < sizeof(length)) {
    Refuse(source, fmt::format("{} bytes are no safetensors file", file.size()));
  }
  std::memcpy(&length, file.data(), sizeof(length));
  if (length > file.size() - sizeof(length)) {
    Refuse(source, fmt::format("header of {} bytes, but the file has {}: truncated, or no "
                               "safetensors file",
                               length, file.size()));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + sizeof(length), length);
  const json document = ParseBoundedJson(text, kHeaderLimits, source);
  if (!document.is_object()) {
    Refuse(source, "the header is no JSON object");
  }
  if (document.size() > kMaxTensors) {
    Refuse(source, fmt::format("{} tensors (want at most {})", document.size(), kMaxTensors));
  }
  SafetensorsHeader header{.data_begin = sizeof(length) + length};
  const uint64_t available = file.size() - header.data_begin;
  for (const auto& [name, entry] : document.items()) {
    if (name != "__metadata__") {
      header.tensors.push_back(ReadTensor(name, entry, available, source));
    }
  }
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
              return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
            });
  RequireCover(header.tensors, available, source);
  return header;
}

TensorView LocateSafetensor(const SafetensorsTensor& tensor, const SafetensorsHeader& header,
                            std::span<const std::byte> file, const std::string& source) {
  const ElementType* type = FindElementType(tensor.dtype);
  if (type == nullptr || !type->type) {
    Fail(ErrorCode::kUnsupported,
         fmt::format("safetensors: {}: tensor {}: element type {} (tandem reads F32, F16 and BF16)",
                     source, QuoteForMessage(tensor.name), QuoteForMessage(tensor.dtype)));
  }
  if (tensor.shape.empty() || tensor.shape.size() > 2) {
    RefuseTensor(source, tensor.name,
                 fmt::format("{} dimensions (want 1 or 2)", tensor.shape.size()));
  }
  return {.data = file.data() + header.data_begin + tensor.begin,
          .type = *type->type,
          .rows = tensor.shape.size() == 1 ? 1 : tensor.shape[0],
          .cols = tensor.shape.back()};
}

}  // namespace tandem
