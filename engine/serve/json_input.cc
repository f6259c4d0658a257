#include "engine/serve/json_input.h"

#include <fmt/format.h>

#include <cmath>
#include <set>
#include <vector>

#include "engine/serve/api_error.h"

namespace tandem {
namespace {

// Parsing deep nesting is fine, but copying, printing or freeing it recurses; so it is refused
// before a tree is made.
void CheckDepth(std::string_view text) {
  uint32_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxJsonDepth) {
        FailRequest("", fmt::format("the body nests deeper than {} levels", kMaxJsonDepth),
                    "json_too_deep");
      }
    } else if ((c == ']' || c == '}') && depth > 0) {
      --depth;
    }
  }
}

// The parser would keep the last of two equal keys and say nothing.
class DuplicateKeys {
 public:
  bool operator()(int depth, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    using Event = nlohmann::json::parse_event_t;
    size_t level = static_cast<size_t>(depth);
    if (event == Event::object_start) {
      if (keys_.size() <= level + 1) keys_.resize(level + 2);
      keys_[level + 1].clear();
    } else if (event == Event::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      if (keys_.size() <= level) keys_.resize(level + 1);
      if (!keys_[level].insert(key).second) {
        FailRequest(key, fmt::format("the key {} stands twice in one object", Excerpt(parsed)),
                    "duplicate_key");
      }
    }
    return true;
  }

 private:
  std::vector<std::set<std::string>> keys_;  // by depth
};

}  // namespace

nlohmann::json ParseJsonBody(std::string_view text) {
  CheckDepth(text);
  nlohmann::json body;
  try {
    body = nlohmann::json::parse(text, DuplicateKeys());
  } catch (const nlohmann::json::exception& e) {
    FailRequest("", fmt::format("the body is not valid JSON: {}", e.what()), "invalid_json");
  }
  if (!body.is_object()) {
    FailRequest("", fmt::format("the body is a JSON {} (want an object)", body.type_name()),
                "invalid_json");
  }
  return body;
}

std::string Excerpt(const nlohmann::json& value) {
  if (value.is_structured()) return fmt::format("an {}", value.type_name());
  constexpr size_t kLongest = 60;
  std::string text = Dump(value);
  if (text.size() <= kLongest) return text;
  size_t end = kLongest;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

int64_t CheckedInteger(const nlohmann::json& value, const std::string& param, int64_t low,
                       int64_t high) {
  bool fits = false;
  int64_t number = 0;
  if (value.is_number_unsigned()) {
    uint64_t raw = value.get<uint64_t>();
    fits = raw <= static_cast<uint64_t>(INT64_MAX);
    number = fits ? static_cast<int64_t>(raw) : 0;
  } else if (value.is_number_integer()) {
    fits = true;
    number = value.get<int64_t>();
  }
  if (!fits || number < low || number > high) {
    FailRequest(param, fmt::format("{}: {} (want an integer from {} to {})", param, Excerpt(value),
                                   low, high));
  }
  return number;
}

double CheckedNumber(const nlohmann::json& value, const std::string& param, double low,
                     double high) {
  double number = value.is_number() ? value.get<double>() : NAN;
  if (!std::isfinite(number) || number < low || number > high) {
    FailRequest(param, fmt::format("{}: {} (want a number from {} to {})", param, Excerpt(value),
                                   low, high));
  }
  return number;
}

const nlohmann::json* Fields::Find(const std::string& name) const {
  auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::optional<int64_t> Fields::Integer(const std::string& name, int64_t low, int64_t high) const {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  return CheckedInteger(*value, name, low, high);
}

std::optional<double> Fields::Number(const std::string& name, double low, double high) const {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  return CheckedNumber(*value, name, low, high);
}

std::optional<bool> Fields::Bool(const std::string& name) const {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) {
    FailRequest(name, fmt::format("{}: {} (want true or false)", name, Excerpt(*value)));
  }
  return value->get<bool>();
}

std::optional<std::string> Fields::String(const std::string& name) const {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) {
    FailRequest(name, fmt::format("{}: {} (want a string)", name, Excerpt(*value)));
  }
  return value->get<std::string>();
}

}  // namespace tandem
