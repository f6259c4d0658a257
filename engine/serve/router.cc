#include "engine/serve/router.h"

#include <fmt/format.h>

#include "engine/base/error.h"
#include "engine/serve/api_error.h"
#include "engine/serve/handlers.h"

namespace tandem {
namespace {

// "/v1/models" and "/models" are one; "/health/" is "/health".
std::string Canonical(std::string path) {
  if (path.size() > 1 && path.back() == '/') path.pop_back();
  if (path.rfind("/v1/", 0) == 0) path.erase(0, 3);
  return path;
}

// One model's own page, whatever its name.
bool IsModelPath(const std::string& path) { return path.rfind("/models/", 0) == 0; }

}  // namespace

Router::Router(ServeContext& context, std::function<uint32_t()> connections)
    : context_(context), access_(context.options) {
  using Function = HttpResponse (*)(ServeContext&, const HttpRequest&);
  auto add = [this](const char* method, const char* path, Function function, bool open = false,
                    bool in_overload = false) {
    routes_.push_back({method, path, open, in_overload,
                       [this, function](const HttpRequest& r) { return function(context_, r); }});
  };
  add("POST", "/completions", HandleCompletion);
  add("POST", "/chat/completions", HandleChat);
  add("POST", "/tokenize", HandleTokenize);
  add("POST", "/detokenize", HandleDetokenize);
  add("POST", "/apply-template", HandleApplyTemplate);
  add("GET", "/models", HandleModels);
  add("GET", "/models/", HandleModels);
  add("GET", "/props", HandleProps);
  add("GET", "/health", HandleHealth, true, true);
  add("GET", "/", HandlePage, true);
  add("GET", "/openapi.yaml", HandleOpenApi);
  routes_.push_back({"GET", "/metrics", false, true, [this, connections](const HttpRequest&) {
                       return HttpResponse{.content_type = "text/plain; version=0.0.4",
                                           .body = context_.metrics.Prometheus(connections())};
                     }});
  routes_.push_back({"GET", "/metrics.json", false, true, [this, connections](const HttpRequest&) {
                       return HttpResponse{.body = Dump(context_.metrics.Json(connections()))};
                     }});
}

const Router::Route* Router::Find(const std::string& method, const std::string& path) const {
  std::string wanted = IsModelPath(path) ? "/models/" : path;
  for (const Route& route : routes_) {
    if (wanted == route.path && (method.empty() || method == route.method)) return &route;
  }
  return nullptr;
}

HttpResponse Router::NoRoute(const HttpRequest& request, const std::string& path) const {
  const Route* other = Find("", path);
  if (other == nullptr) {
    throw ApiError(
        404, "not_found_error",
        fmt::format("there is no {} here; /openapi.yaml lists what there is", path.substr(0, 200)),
        "", "route_not_found");
  }
  HttpResponse response =
      ApiError(405, "invalid_request_error",
               fmt::format("{} does not take {} (want {})", path, request.method, other->method),
               "", "method_not_allowed")
          .Response();
  response.headers.emplace_back("Allow", other->method);
  return response;
}

HttpResponse Router::Dispatch(const HttpRequest& request, const std::string& path) const {
  access_.CheckOrigin(request);
  if (request.method == "OPTIONS") return {.status = 204, .headers = {{"Allow", "GET, POST"}}};
  const Route* route = Find(request.method == "HEAD" ? "GET" : request.method, path);
  // Whoever has no key does not even learn which paths there are.
  if (route == nullptr || !route->open) access_.CheckKey(request);
  if (route == nullptr) return NoRoute(request, path);
  if (request.over_capacity && !route->in_overload) {
    throw ApiError(
        503, "unavailable_error",
        fmt::format("more than {} connections are open", context_.options.max_connections), "",
        "too_many_connections");
  }
  return route->handler(request);
}

std::string Router::RouteName(const std::string& path) const {
  if (IsModelPath(path)) return "/models/{id}";
  for (const Route& route : routes_) {
    if (path == route.path) return path;
  }
  return "other";  // names from outside are no label values
}

void Router::Finish(const HttpRequest& request, HttpResponse& response) const {
  response.headers.emplace_back("X-Content-Type-Options", "nosniff");
  for (auto& header : access_.CorsHeaders(request)) response.headers.push_back(std::move(header));
  if (response.status >= 400 && context_.options.retry_header) {
    response.headers.emplace_back("x-should-retry", "false");
  }
}

HttpResponse Router::Handle(const HttpRequest& request) const {
  HttpResponse response;
  std::string path = Canonical(request.path);
  try {
    response = Dispatch(request, path);
  } catch (const ApiError& error) {
    response = error.Response();
  } catch (const Error& error) {
    ApiError mapped = ApiError::From(error);
    if (mapped.status() >= 500) {
      context_.options.log->Write(LogLevel::kError,
                                  fmt::format("serve: {}: {}", path, error.what()));
    }
    response = mapped.Response();
  } catch (const std::exception& error) {
    context_.options.log->Write(LogLevel::kError, fmt::format("serve: {}: {}", path, error.what()));
    response =
        ApiError(500, "server_error", "an internal error; the server's log has more").Response();
  }
  context_.metrics.CountRequest(RouteName(path), response.status);
  Finish(request, response);
  return response;
}

HttpResponse Router::Transport(int status, const std::string& message) const {
  context_.metrics.CountRequest("none", status);
  HttpResponse response = TransportError(status, message);
  Finish(HttpRequest{}, response);
  return response;
}

}  // namespace tandem
