// JSON out of files that may be hostile: size, nesting and the number of values are bounded before
// memory is taken for them, and a key that appears twice in an object is refused (which of its
// values would count is anyone's guess).
//
//   nlohmann::json config = ParseBoundedJson(text, {.bytes = 1 << 20}, "DIR/config.json");
//   uint32_t layers = JsonFields(config, "DIR/config.json").RequireU32("num_hidden_layers");
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace tandem {

struct JsonLimits {
  uint64_t bytes = uint64_t{1} << 20;
  uint32_t depth = 32;
  uint64_t values = uint64_t{1} << 16;  // scalars, arrays and objects in all
};

// Throws Error(kModelFile) naming `source` and what is wrong.
nlohmann::json ParseBoundedJson(std::string_view text, const JsonLimits& limits,
                                const std::string& source);

// Typed look-ups in an object. A key that is null counts as absent; one of another type or range is
// Error(kModelFile) naming source and key. Views: both arguments must outlive it.
class JsonFields {
 public:
  // Throws when `object` is none.
  JsonFields(const nlohmann::json& object, const std::string& source);

  const std::string& source() const { return source_; }

  const nlohmann::json* Find(const char* key) const;  // null when absent or null
  std::optional<uint32_t> FindU32(const char* key) const;
  std::optional<float> FindF32(const char* key) const;
  std::optional<bool> FindBool(const char* key) const;
  std::optional<std::string> FindString(const char* key) const;
  uint32_t RequireU32(const char* key) const;

  // "model: SOURCE: KEY: PROBLEM".
  [[noreturn]] void Refuse(const char* key, const std::string& problem) const;
  [[noreturn]] void RefuseUnsupported(const char* key, const std::string& problem) const;

 private:
  const nlohmann::json& object_;
  const std::string& source_;
};

// Text of a value, short enough for a message.
std::string QuoteJson(const nlohmann::json& value);

}  // namespace tandem
