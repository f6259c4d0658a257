// From a request to the handler it names: access, capacity and method first, errors into answers.
//
// Immutable after construction; any thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/serve/access.h"
#include "engine/serve/context.h"
#include "engine/serve/http.h"

namespace tandem {

class Router {
 public:
  // `connections` says how many are open, for the metrics.
  Router(ServeContext& context, std::function<uint32_t()> connections);

  // Never throws.
  HttpResponse Handle(const HttpRequest& request) const;
  // An answer to a request that never got here (http.h, error_response).
  HttpResponse Transport(int status, const std::string& message) const;

 private:
  struct Route {
    const char* method;
    const char* path;
    bool open;         // needs no key
    bool in_overload;  // answered even with too many connections
    std::function<HttpResponse(const HttpRequest&)> handler;
  };

  // Null when there is none; an empty method finds any.
  const Route* Find(const std::string& method, const std::string& path) const;
  // 405 when the path takes another method, else 404.
  HttpResponse NoRoute(const HttpRequest& request, const std::string& path) const;
  HttpResponse Dispatch(const HttpRequest& request, const std::string& path) const;
  std::string RouteName(const std::string& path) const;
  void Finish(const HttpRequest& request, HttpResponse& response) const;

  ServeContext& context_;
  Access access_;
  std::vector<Route> routes_;
};

}  // namespace tandem
