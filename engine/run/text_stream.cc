#include "engine/run/text_stream.h"

#include <algorithm>
#include <utility>

namespace tandem {
namespace {

// The length of the longest end of `text` that is a proper beginning of `stop`.
size_t PartialMatch(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.substr(text.size() - length) == stop.substr(0, length)) return length;
  }
  return 0;
}

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer, std::vector<std::string> stops, TextStart start)
    : detokenizer_(tokenizer, start), stops_(std::move(stops)) {
  // An empty stop string would end every answer before it begins.
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

std::string TextStream::Add(int32_t id) {
  if (stopped_) return "";
  return Release(detokenizer_.Add(id));
}

std::string TextStream::Finish() {
  if (stopped_) return "";
  std::string out = Release(detokenizer_.Finish());
  if (!stopped_) out += std::exchange(held_, "");
  return out;
}

std::string TextStream::Release(std::string_view fresh) {
  held_ += fresh;
  // The stop that begins first wins.
  size_t at = std::string::npos;
  for (const std::string& stop : stops_) at = std::min(at, held_.find(stop));
  if (at != std::string::npos) {
    stopped_ = true;
    std::string out = held_.substr(0, at);
    held_.clear();
    return out;
  }
  size_t keep = 0;
  for (const std::string& stop : stops_) keep = std::max(keep, PartialMatch(held_, stop));
  // Never cut inside a code point: a stop string may begin with a byte that ends one.
  size_t end = held_.size() - keep;
  while (end > 0 && end < held_.size() && (static_cast<unsigned char>(held_[end]) & 0xc0) == 0x80) {
    --end;
  }
  std::string out = held_.substr(0, end);
  held_.erase(0, end);
  return out;
}

}  // namespace tandem
