// Whether a request's body is framed soundly, judged before a byte of it is read; and what requests
// that never reach a handler are told.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

std::string LowerCase(std::string text);  // ASCII

struct Framing {
  std::vector<std::string> content_lengths;  // as many as the request has
  bool transfer_encoding = false;
  bool wants_body = false;  // a POST
  std::string content_type;
};

// The status that refuses it, or 0: two lengths, a length beside a coding, no number (400), a body
// wanted and none announced (411), too large (413), multipart (415).
int FramingStatus(const Framing& framing, size_t max_body_bytes);

// For a status that the transport gives by itself.
const char* TransportMessage(int status);

}  // namespace tandem
