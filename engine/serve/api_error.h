// Errors as clients see them: an HTTP status and a body
// {"error":{"message","type","param","code"}}.
//
//   throw ApiError(400, "invalid_request_error", "n: 99 (want 1 to 8)", "n");
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "engine/base/error.h"
#include "engine/serve/http.h"

namespace tandem {

// An Error that also says which status, and which field of the request is at fault.
class ApiError : public Error {
 public:
  ApiError(int status, std::string type, const std::string& message, std::string param = "",
           std::string code = "");
  // Any other error, mapped: invalid arguments 400, a full queue 429, stopping 503, the rest 500.
  static ApiError From(const Error& error);

  int status() const { return status_; }
  const std::string& param() const { return param_; }
  // {"error": {...}}; an empty param or code is null.
  nlohmann::json Json() const;
  HttpResponse Response() const;

 private:
  int status_;
  std::string type_, param_, api_code_;
};

// 400: the value of `param` is wrong, or not supported.
[[noreturn]] void FailRequest(const std::string& param, const std::string& message,
                              const std::string& code = "invalid_value");

// The body of an answer to a request that never reached a handler.
HttpResponse TransportError(int status, const std::string& message);

// JSON text; bytes that are no UTF-8 come out as U+FFFD instead of failing.
std::string Dump(const nlohmann::json& json);

}  // namespace tandem
