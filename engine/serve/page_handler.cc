// GET / and /openapi.yaml: the live page and the description of the protocol, both built in.
#include "engine/serve/assets.h"
#include "engine/serve/handlers.h"
#include "engine/serve/page_policy.h"

namespace tandem {

HttpResponse HandlePage(ServeContext&, const HttpRequest&) {
  static const std::string policy = PagePolicy(PageHtml());
  return {.content_type = "text/html; charset=utf-8",
          .headers = {{"Content-Security-Policy", policy},
                      {"Referrer-Policy", "no-referrer"},
                      {"X-Frame-Options", "DENY"},
                      {"Cache-Control", "no-cache"}},
          .body = std::string(PageHtml())};
}

HttpResponse HandleOpenApi(ServeContext&, const HttpRequest&) {
  return {.content_type = "application/yaml", .body = std::string(OpenApiYaml())};
}

}  // namespace tandem
