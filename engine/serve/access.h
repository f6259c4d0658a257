// Who may ask: API keys, web pages of other origins, and names that a browser was tricked into.
//
// Immutable after construction; any thread.
#pragma once

#include <string>
#include <vector>

#include "engine/serve/http.h"
#include "engine/serve/server_options.h"

namespace tandem {

class Access {
 public:
  explicit Access(const ServerOptions& options);

  // Throws ApiError (401) unless the request carries one of the keys, as "Authorization: Bearer" or
  // "X-Api-Key". Takes the same time whichever part of a key is wrong.
  void CheckKey(const HttpRequest& request) const;
  // Throws ApiError (403) for a request that a web page of another origin made, unless that origin
  // is allowed; and, on a server that listens on this machine alone, for one sent to another host
  // name.
  void CheckOrigin(const HttpRequest& request) const;
  // Headers that let an allowed origin read the answer; none for anyone else.
  HttpHeaders CorsHeaders(const HttpRequest& request) const;

 private:
  bool Allowed(const std::string& origin) const;

  std::vector<std::string> key_hashes_;
  std::vector<std::string> origins_;
  bool any_origin_ = false;
  bool loopback_ = true;
};

}  // namespace tandem
