#include "engine/model/huggingface/bounded_json.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <vector>

#include "engine/base/error.h"
#include "engine/model/gguf.h"

namespace tandem {
namespace {

using nlohmann::json;

[[noreturn]] void RefuseJson(const std::string& source, const std::string& problem) {
  Fail(ErrorCode::kModelFile, fmt::format("model: {}: {}", source, problem));
}

// Builds the document from the parser's events, so that a limit stops it before memory is taken.
class Builder final : public nlohmann::json_sax<json> {
 public:
  Builder(const JsonLimits& limits, const std::string& source) : limits_(limits), source_(source) {}

  json Take() { return std::move(root_); }

  bool null() override { return Place(json(nullptr)) != nullptr; }
  bool boolean(bool value) override { return Place(json(value)) != nullptr; }
  bool number_integer(number_integer_t value) override { return Place(json(value)) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return Place(json(value)) != nullptr; }
  bool number_float(number_float_t value, const string_t&) override {
    return Place(json(value)) != nullptr;
  }
  bool string(string_t& value) override { return Place(json(std::move(value))) != nullptr; }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(json::object()); }
  bool start_array(size_t) override { return Open(json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    if (stack_.back()->contains(name)) {
      RefuseJson(source_, fmt::format("key {} appears twice", QuoteForMessage(name)));
    }
    key_ = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string&, const json::exception& error) override {
    // The library's text starts with its own name and number, and quotes the input.
    (void)error;
    RefuseJson(source_, fmt::format("not valid JSON near byte {}: the file is truncated or corrupt",
                                    position));
  }

 private:
  json* Place(json value) {
    if (++values_ > limits_.values) {
      RefuseJson(source_, fmt::format("more than {} values (want fewer: no model needs as many)",
                                      limits_.values));
    }
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }

  bool Open(json container) {
    json* placed = Place(std::move(container));
    if (stack_.size() >= limits_.depth) {
      RefuseJson(source_, fmt::format("nested more than {} deep", limits_.depth));
    }
    stack_.push_back(placed);
    return true;
  }

  bool Close() {
    stack_.pop_back();
    return true;
  }

  const JsonLimits& limits_;
  const std::string& source_;
  json root_;
  // Open containers, outermost first. A parent does not grow while a child is open, so the
  // pointers stay good.
  std::vector<json*> stack_;
  std::string key_;
  uint64_t values_ = 0;
};

}  // namespace

json ParseBoundedJson(std::string_view text, const JsonLimits& limits, const std::string& source) {
  if (text.size() > limits.bytes) {
    RefuseJson(source, fmt::format("{} bytes (want at most {})", text.size(), limits.bytes));
  }
  Builder builder(limits, source);
  json::sax_parse(text.begin(), text.end(), &builder);
  return builder.Take();
}

JsonFields::JsonFields(const json& object, const std::string& source)
    : object_(object), source_(source) {
  if (!object.is_object()) {
    RefuseJson(source, fmt::format("{} (want an object)", QuoteJson(object)));
  }
}

void JsonFields::Refuse(const char* key, const std::string& problem) const {
  RefuseJson(source_, fmt::format("{}: {}", key, problem));
}

void JsonFields::RefuseUnsupported(const char* key, const std::string& problem) const {
  Fail(ErrorCode::kUnsupported, fmt::format("model: {}: {}: {}", source_, key, problem));
}

const json* JsonFields::Find(const char* key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::optional<uint32_t> JsonFields::FindU32(const char* key) const {
  const json* value = Find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_number_unsigned() ||
      value->get<uint64_t>() > std::numeric_limits<uint32_t>::max()) {
    Refuse(key, fmt::format("{} (want an unsigned 32-bit number)", QuoteJson(*value)));
  }
  return static_cast<uint32_t>(value->get<uint64_t>());
}

std::optional<float> JsonFields::FindF32(const char* key) const {
  const json* value = Find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_number() ||
      std::fabs(value->get<double>()) > double{std::numeric_limits<float>::max()}) {
    Refuse(key, fmt::format("{} (want a number that fits f32)", QuoteJson(*value)));
  }
  return static_cast<float>(value->get<double>());
}

std::optional<bool> JsonFields::FindBool(const char* key) const {
  const json* value = Find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_boolean()) {
    Refuse(key, fmt::format("{} (want true or false)", QuoteJson(*value)));
  }
  return value->get<bool>();
}

std::optional<std::string> JsonFields::FindString(const char* key) const {
  const json* value = Find(key);
  if (value == nullptr) {
    return std::nullopt;
  }
  if (!value->is_string()) {
    Refuse(key, fmt::format("{} (want a string)", QuoteJson(*value)));
  }
  return value->get<std::string>();
}

uint32_t JsonFields::RequireU32(const char* key) const {
  const std::optional<uint32_t> value = FindU32(key);
  if (!value) {
    Refuse(key, "missing (want an unsigned number)");
  }
  return *value;
}

std::string QuoteJson(const json& value) {
  if (value.is_array() || value.is_object()) {
    return fmt::format("{} of {}", value.type_name(), value.size());
  }
  return QuoteForMessage(value.is_string() ? value.get<std::string>() : value.dump());
}

}  // namespace tandem
