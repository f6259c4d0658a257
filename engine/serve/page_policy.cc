#include "engine/serve/page_policy.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/sha.h>

#include <array>

namespace tandem {
namespace {

// "'sha256-...'" of the element's content (CSP level 3, section 2.3.1); 'none' without one.
std::string HashOf(std::string_view html, std::string_view element) {
  std::string open = fmt::format("<{}>", element), close = fmt::format("</{}>", element);
  size_t begin = html.find(open);
  size_t end = html.find(close);
  if (begin == html.npos || end == html.npos || end < begin) return "'none'";
  std::string_view content = html.substr(begin + open.size(), end - begin - open.size());
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(content.data()), content.size(), digest.data());
  std::array<unsigned char, 64> base64{};
  int length = EVP_EncodeBlock(base64.data(), digest.data(), static_cast<int>(digest.size()));
  return fmt::format("'sha256-{}'", std::string_view(reinterpret_cast<const char*>(base64.data()),
                                                     static_cast<size_t>(length)));
}

}  // namespace

std::string PagePolicy(std::string_view html) {
  return fmt::format(
      "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; "
      "base-uri 'none'; "
      "form-action 'none'; frame-ancestors 'none'",
      HashOf(html, "style"), HashOf(html, "script"));
}

}  // namespace tandem
