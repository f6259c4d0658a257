#include "engine/serve/access.h"

#include <algorithm>
#include <string_view>

#include "engine/base/error.h"
#include "engine/base/sha256.h"
#include "engine/serve/api_error.h"
#include "engine/serve/framing.h"

namespace tandem {
namespace {

std::vector<std::string> SplitByComma(const std::string& text) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= text.size()) {
    size_t end = std::min(text.find(',', begin), text.size());
    std::string part = text.substr(begin, end - begin);
    while (!part.empty() && part.front() == ' ') part.erase(0, 1);
    while (!part.empty() && (part.back() == ' ' || part.back() == '/')) part.pop_back();
    if (!part.empty()) parts.push_back(part);
    begin = end + 1;
  }
  return parts;
}

// Compares hashes, which have one length, without stopping at the first difference.
bool SameHash(std::string_view a, std::string_view b) {
  unsigned difference = a.size() != b.size();
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  }
  return difference == 0;
}

std::string PresentedKey(const HttpRequest& request) {
  constexpr std::string_view kBearer = "bearer ";
  if (const std::string* value = request.Header("authorization")) {
    std::string scheme = value->substr(0, kBearer.size());
    if (LowerCase(scheme) == kBearer) return value->substr(kBearer.size());
  }
  const std::string* value = request.Header("x-api-key");
  return value == nullptr ? "" : *value;
}

// "127.0.0.1:8080" without its port; "[::1]:80" gives "[::1]".
std::string_view WithoutPort(std::string_view host) {
  size_t colon = host.rfind(':');
  size_t bracket = host.rfind(']');
  bool has_port =
      colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket);
  return has_port ? host.substr(0, colon) : host;
}

std::string_view HostOf(std::string_view origin) {
  size_t scheme = origin.find("://");
  return scheme == std::string_view::npos ? origin : origin.substr(scheme + 3);
}

}  // namespace

Access::Access(const ServerOptions& options)
    : origins_(SplitByComma(options.cors_origins)), loopback_(IsLoopbackHost(options.host)) {
  for (const std::string& key : options.api_keys) {
    // A script's variable that is not set must not open the door.
    if (key.empty()) {
      Fail(ErrorCode::kInvalidArgument,
           "serve: --api-key: got an empty key, want text; leave the flag out to serve without "
           "keys");
    }
    key_hashes_.push_back(Sha256Hex(key));
  }
  any_origin_ = std::find(origins_.begin(), origins_.end(), "*") != origins_.end();
}

void Access::CheckKey(const HttpRequest& request) const {
  if (key_hashes_.empty()) return;
  std::string presented = Sha256Hex(PresentedKey(request));
  bool known = false;
  for (const std::string& hash : key_hashes_) known |= SameHash(hash, presented);
  if (!known) {
    throw ApiError(401, "authentication_error",
                   "no valid API key: send one as 'Authorization: Bearer KEY'", "",
                   "invalid_api_key");
  }
}

bool Access::Allowed(const std::string& origin) const {
  return any_origin_ || std::find(origins_.begin(), origins_.end(), origin) != origins_.end();
}

void Access::CheckOrigin(const HttpRequest& request) const {
  const std::string* host = request.Header("host");
  const std::string* origin = request.Header("origin");
  if (origin != nullptr && !Allowed(*origin) && (host == nullptr || HostOf(*origin) != *host)) {
    throw ApiError(403, "permission_error",
                   "web pages of another origin may not call this server; its owner can allow "
                   "them with --cors-origins");
  }
  // A name under a stranger's control that resolves to this machine makes that stranger's page "the
  // same origin" (DNS rebinding).
  if (host == nullptr || !loopback_ || IsLoopbackHost(WithoutPort(*host))) return;
  for (const std::string& allowed : origins_) {
    if (allowed == "*" || HostOf(allowed) == *host) return;
  }
  throw ApiError(403, "permission_error",
                 "this server listens on this machine alone, and was called by another name; use "
                 "127.0.0.1 or localhost");
}

HttpHeaders Access::CorsHeaders(const HttpRequest& request) const {
  const std::string* origin = request.Header("origin");
  if (origin == nullptr || !Allowed(*origin)) return {};
  bool printable = std::all_of(origin->begin(), origin->end(),
                               [](unsigned char c) { return c > 0x20 && c < 0x7F; });
  if (!printable) return {};
  return {{"Access-Control-Allow-Origin", *origin},
          {"Vary", "Origin"},
          {"Access-Control-Allow-Methods", "GET, POST, OPTIONS"},
          {"Access-Control-Allow-Headers", "*, Authorization, Content-Type, X-Api-Key"},
          {"Access-Control-Expose-Headers", "x-request-id, Retry-After"},
          {"Access-Control-Max-Age", "600"}};
}

}  // namespace tandem
