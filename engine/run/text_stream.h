// A request's tokens as text: whole code points only, and no part of a stop string ever emitted.
// Belongs to one request; not thread-safe.
//
//   TextStream stream(tokenizer, {"\n\n"});
//   out += stream.Add(id);  if (stream.stopped()) engine.Cancel(request);  out += stream.Finish();
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/model/tokenizer.h"

namespace tandem {

class TextStream {
 public:
  TextStream(const Tokenizer& tokenizer, std::vector<std::string> stops,
             TextStart start = TextStart::kContinues);
  // Text that is safe to show: what could be the beginning of a stop string is held back.
  std::string Add(int32_t id);
  // The held-back rest, unless a stop string was met.
  std::string Finish();
  bool stopped() const { return stopped_; }

 private:
  std::string Release(std::string_view fresh);
  Detokenizer detokenizer_;
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace tandem
