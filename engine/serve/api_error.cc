#include "engine/serve/api_error.h"

namespace tandem {
namespace {

ErrorCode CodeOfStatus(int status) {
  switch (status) {
    case 404:
      return ErrorCode::kNotFound;
    case 429:
      return ErrorCode::kOverloaded;
    case 501:
      return ErrorCode::kUnsupported;
    case 503:
      return ErrorCode::kCancelled;
    default:
      return status < 500 ? ErrorCode::kInvalidArgument : ErrorCode::kFailure;
  }
}

nlohmann::json StringOrNull(const std::string& text) {
  return text.empty() ? nlohmann::json() : nlohmann::json(text);
}

}  // namespace

ApiError::ApiError(int status, std::string type, const std::string& message, std::string param,
                   std::string code)
    : Error(CodeOfStatus(status), message),
      status_(status),
      type_(std::move(type)),
      param_(std::move(param)),
      api_code_(std::move(code)) {}

ApiError ApiError::From(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
      return ApiError(400, "invalid_request_error", error.what());
    case ErrorCode::kNotFound:
      return ApiError(404, "not_found_error", error.what());
    case ErrorCode::kUnsupported:
      return ApiError(501, "not_supported_error", error.what());
    case ErrorCode::kOverloaded:
      return ApiError(429, "rate_limit_error", error.what(), "", "queue_full");
    case ErrorCode::kCancelled:
      return ApiError(503, "unavailable_error", error.what());
    default:
      return ApiError(500, "server_error", error.what(), "", ToString(error.code()));
  }
}

nlohmann::json ApiError::Json() const {
  return {{"error",
           {{"message", what()},
            {"type", type_},
            {"param", StringOrNull(param_)},
            {"code", StringOrNull(api_code_)}}}};
}

HttpResponse ApiError::Response() const {
  HttpResponse response{.status = status_, .body = Dump(Json())};
  if (status_ == 429 || status_ == 503) response.headers.emplace_back("Retry-After", "1");
  if (status_ == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  return response;
}

void FailRequest(const std::string& param, const std::string& message, const std::string& code) {
  throw ApiError(400, "invalid_request_error", message, param, code);
}

HttpResponse TransportError(int status, const std::string& message) {
  const char* type = status >= 500 ? "server_error" : "invalid_request_error";
  return ApiError(status, type, message).Response();
}

std::string Dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace tandem
