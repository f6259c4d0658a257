#include "engine/model/text/utf8.h"
#include "engine/model/tokenizer.h"

namespace tandem {

std::string Detokenizer::Add(int32_t id) {
  std::string bytes = tokenizer_->TokenBytes(id);
  if (drops_space_ && !bytes.empty()) {
    if (bytes.front() == ' ') bytes.erase(0, 1);
    drops_space_ = false;
  }
  pending_ += bytes;
  std::string complete;
  size_t at = 0;
  while (at < pending_.size()) {
    const text::Utf8Step step = text::NextUtf8(pending_, at);
    if (step.kind == text::Utf8Kind::kTruncated) break;
    if (step.kind == text::Utf8Kind::kValid) {
      complete.append(pending_, at, step.bytes);
    } else {
      complete += text::kReplacementUtf8;
    }
    at += step.bytes;
  }
  pending_.erase(0, at);
  return complete;
}

std::string Detokenizer::Finish() {
  std::string rest = text::ReplaceInvalidUtf8(pending_);
  pending_.clear();
  return rest;
}

}  // namespace tandem
