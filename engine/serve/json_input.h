// JSON from outside: bounded before it is parsed, and read field by field through range checks.
// Every failure is a 400 that names the field, what was got and what was wanted.
//
//   nlohmann::json body = ParseJsonBody(request.body);
//   Fields fields(body);
//   uint32_t n = fields.Integer("n", 1, 8).value_or(1);
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace tandem {

inline constexpr uint32_t kMaxJsonDepth = 64;

// A JSON object, nested at most kMaxJsonDepth deep, without duplicate keys.
nlohmann::json ParseJsonBody(std::string_view text);

// The one way an integer gets in: whole, in [low, high]; anything else is a 400 naming `param`.
int64_t CheckedInteger(const nlohmann::json& value, const std::string& param, int64_t low,
                       int64_t high);
// Finite, in [low, high].
double CheckedNumber(const nlohmann::json& value, const std::string& param, double low,
                     double high);

// Reads an object's fields. An absent field and null are the same: nullopt.
class Fields {
 public:
  explicit Fields(const nlohmann::json& object) : object_(object) {}

  // Null when absent.
  const nlohmann::json* Find(const std::string& name) const;
  std::optional<int64_t> Integer(const std::string& name, int64_t low, int64_t high) const;
  std::optional<double> Number(const std::string& name, double low, double high) const;
  std::optional<bool> Bool(const std::string& name) const;
  std::optional<std::string> String(const std::string& name) const;

 private:
  const nlohmann::json& object_;
};

// The value as it stands in messages: cut short when long.
std::string Excerpt(const nlohmann::json& value);

}  // namespace tandem
