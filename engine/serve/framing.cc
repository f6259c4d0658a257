#include "engine/serve/framing.h"

#include <charconv>
#include <cstdint>

#include "engine/serve/http.h"

namespace tandem {

std::string LowerCase(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

int FramingStatus(const Framing& framing, size_t max_body_bytes) {
  size_t lengths = framing.content_lengths.size();
  if (lengths > 1 || (lengths == 1 && framing.transfer_encoding)) return 400;
  if (LowerCase(framing.content_type).rfind("multipart/", 0) == 0) return 415;
  if (lengths == 0) return framing.wants_body && !framing.transfer_encoding ? 411 : 0;
  const std::string& text = framing.content_lengths.front();
  uint64_t length = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
  if (error == std::errc::result_out_of_range) return 413;
  if (error != std::errc() || end != text.data() + text.size()) return 400;
  return length > max_body_bytes ? 413 : 0;
}

const char* TransportMessage(int status) {
  switch (status) {
    case 400:
      return "the HTTP request is malformed";
    case 408:
      return "the request did not arrive in time";
    case 411:
      return "a JSON body is wanted, and its Content-Length";
    case 413:
      return "the request's body is too large";
    case 414:
      return "the request's path is too long";
    case 415:
      return "the content type is not supported: send application/json";
    case 416:
      return "the Range header is malformed";
    case 431:
      return "the request's headers are too large";
    default:
      return "the request could not be handled";
  }
}

const std::string* HttpRequest::Header(std::string_view name) const {
  for (const auto& [key, value] : headers) {
    if (key == name) return &value;
  }
  return nullptr;
}

bool IsLoopbackHost(std::string_view host) {
  if (host == "localhost" || host == "::1" || host == "[::1]") return true;
  // Not "127.example.com".
  return host.substr(0, 4) == "127." && host.find_first_not_of("0123456789.") == host.npos;
}

}  // namespace tandem
