// Typed look-ups in GGUF metadata, and the names of ggml's types.
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "engine/base/error.h"
#include "engine/model/gguf.h"

namespace tandem {
namespace {

template <typename T>
T Load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// An integer of any GGUF width; empty when the type is no integer, or the value is below zero.
std::optional<uint64_t> LoadUnsigned(GgufType type, const std::byte* at) {
  int64_t value = 0;
  switch (type) {
    case GgufType::kUint8:
      return Load<uint8_t>(at);
    case GgufType::kUint16:
      return Load<uint16_t>(at);
    case GgufType::kUint32:
      return Load<uint32_t>(at);
    case GgufType::kUint64:
      return Load<uint64_t>(at);
    case GgufType::kInt8:
      value = Load<int8_t>(at);
      break;
    case GgufType::kInt16:
      value = Load<int16_t>(at);
      break;
    case GgufType::kInt32:
      value = Load<int32_t>(at);
      break;
    case GgufType::kInt64:
      value = Load<int64_t>(at);
      break;
    default:
      return std::nullopt;
  }
  if (value < 0) {
    return std::nullopt;
  }
  return static_cast<uint64_t>(value);
}

std::string Spell(const GgufValue& value) {
  if (value.type != GgufType::kArray) {
    return ToString(value.type);
  }
  return fmt::format("array of {} {}", value.count, ToString(value.element));
}

}  // namespace

const char* ToString(GgufType type) {
  static constexpr const char* kNames[kGgufTypeCount] = {
      "uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
      "bool",  "string", "array",  "uint64", "int64",  "float64"};
  const auto index = static_cast<uint32_t>(type);
  return index < kGgufTypeCount ? kNames[index] : "?";
}

const char* GgmlTypeName(uint32_t ggml_type) {
  // Numbers as ggml.h assigns them; the gaps are types that ggml has withdrawn.
  static constexpr const char* kNames[] = {
      "F32",   "F16",        "Q4_0",       "Q4_1",       "Q4_2",     "Q4_3",     "Q5_0",
      "Q5_1",  "Q8_0",       "Q8_1",       "Q2_K",       "Q3_K",     "Q4_K",     "Q5_K",
      "Q6_K",  "Q8_K",       "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",  "IQ1_S",    "IQ4_NL",
      "IQ3_S", "IQ2_S",      "IQ4_XS",     "I8",         "I16",      "I32",      "I64",
      "F64",   "IQ1_M",      "BF16",       "Q4_0_4_4",   "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",
      "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",    "NVFP4",    "Q1_0"};
  return ggml_type < std::size(kNames) ? kNames[ggml_type] : "unknown";
}

std::string QuoteForMessage(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text.substr(0, 64)) {
    quoted += (c >= 0x20 && c < 0x7f) ? c : '?';
  }
  return quoted + (text.size() > 64 ? "...'" : "'");
}

void GgufMetadata::Refuse(std::string_view key, const std::string& problem) const {
  Fail(ErrorCode::kModelFile, fmt::format("gguf: {}: {}: {}", source_, key, problem));
}

bool GgufMetadata::Insert(std::string_view key, const GgufValue& value) {
  return values_.emplace(key, value).second;
}

const GgufValue* GgufMetadata::Find(std::string_view key) const {
  const auto it = values_.find(key);
  return it == values_.end() ? nullptr : &it->second;
}

std::optional<uint32_t> GgufMetadata::FindU32(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  const std::optional<uint64_t> number = LoadUnsigned(value->type, value->payload.data());
  if (!number || *number > std::numeric_limits<uint32_t>::max()) {
    Refuse(key, fmt::format("{} that is no unsigned 32-bit number", Spell(*value)));
  }
  return static_cast<uint32_t>(*number);
}

std::optional<float> GgufMetadata::FindF32(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  double number = 0;
  if (value->type == GgufType::kFloat32) {
    number = Load<float>(value->payload.data());
  } else if (value->type == GgufType::kFloat64) {
    number = Load<double>(value->payload.data());
  } else {
    Refuse(key, fmt::format("{} (want float32)", Spell(*value)));
  }
  if (!std::isfinite(number) || std::fabs(number) > std::numeric_limits<float>::max()) {
    Refuse(key, fmt::format("{} (want a finite float32)", number));
  }
  return static_cast<float>(number);
}

std::optional<bool> GgufMetadata::FindBool(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->type != GgufType::kBool) {
    Refuse(key, fmt::format("{} (want bool)", Spell(*value)));
  }
  const auto byte = Load<uint8_t>(value->payload.data());
  if (byte > 1) {
    Refuse(key, fmt::format("bool of value {} (want 0 or 1)", byte));
  }
  return byte == 1;
}

std::optional<std::string> GgufMetadata::FindString(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (value->type != GgufType::kString) {
    Refuse(key, fmt::format("{} (want string)", Spell(*value)));
  }
  const auto text = value->payload.subspan(sizeof(uint64_t));
  return std::string(reinterpret_cast<const char*>(text.data()), text.size());
}

uint32_t GgufMetadata::RequireU32(std::string_view key) const {
  const std::optional<uint32_t> value = FindU32(key);
  if (!value) {
    Refuse(key, "missing (want an unsigned number)");
  }
  return *value;
}

float GgufMetadata::RequireF32(std::string_view key) const {
  const std::optional<float> value = FindF32(key);
  if (!value) {
    Refuse(key, "missing (want float32)");
  }
  return *value;
}

std::string GgufMetadata::RequireString(std::string_view key) const {
  std::optional<std::string> value = FindString(key);
  if (!value) {
    Refuse(key, "missing (want a string)");
  }
  return *std::move(value);
}

std::vector<std::string> GgufMetadata::Strings(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) {
    return {};
  }
  if (value->type != GgufType::kArray || value->element != GgufType::kString) {
    Refuse(key, fmt::format("{} (want array of string)", Spell(*value)));
  }
  // The reader walked the array once, so the lengths are known to fit.
  std::vector<std::string> strings;
  strings.reserve(value->count);
  const std::byte* at = value->payload.data();
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto length = Load<uint64_t>(at);
    at += sizeof(length);
    strings.emplace_back(reinterpret_cast<const char*>(at), length);
    at += length;
  }
  return strings;
}

std::vector<int32_t> GgufMetadata::Int32s(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) {
    return {};
  }
  if (value->type != GgufType::kArray ||
      (value->element != GgufType::kInt32 && value->element != GgufType::kUint32)) {
    Refuse(key, fmt::format("{} (want array of int32)", Spell(*value)));
  }
  std::vector<int32_t> numbers(value->count);
  if (!numbers.empty()) {
    std::memcpy(numbers.data(), value->payload.data(), numbers.size() * sizeof(int32_t));
  }
  return numbers;
}

std::vector<float> GgufMetadata::Floats(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) {
    return {};
  }
  if (value->type != GgufType::kArray || value->element != GgufType::kFloat32) {
    Refuse(key, fmt::format("{} (want array of float32)", Spell(*value)));
  }
  std::vector<float> numbers(value->count);
  if (!numbers.empty()) {
    std::memcpy(numbers.data(), value->payload.data(), numbers.size() * sizeof(float));
  }
  return numbers;
}

}  // namespace tandem
