#include "engine/model/text/utf8.h"

namespace tandem::text {
namespace {

// What may follow a lead byte: how many bytes, and the range of the first of them.
struct Lead {
  int continuation = -1;  // -1: no lead byte
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
};

Lead LeadOf(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {1};
  if (byte == 0xE0) return {2, 0xA0, 0xBF};  // below: overlong
  if (byte == 0xED) return {2, 0x80, 0x9F};  // above: surrogates
  if (byte >= 0xE1 && byte <= 0xEF) return {2};
  if (byte == 0xF0) return {3, 0x90, 0xBF};  // below: overlong
  if (byte == 0xF4) return {3, 0x80, 0x8F};  // above: beyond U+10FFFF
  if (byte >= 0xF1 && byte <= 0xF3) return {3};
  return {};
}

}  // namespace

Utf8Step NextUtf8(std::string_view text, size_t offset) {
  const auto first = static_cast<uint8_t>(text[offset]);
  if (first < 0x80) return {Utf8Kind::kValid, first, 1};
  Lead lead = LeadOf(first);
  if (lead.continuation < 0) return {Utf8Kind::kInvalid, 0xFFFD, 1};
  uint32_t value = first & (0x3Fu >> lead.continuation);
  for (int i = 1; i <= lead.continuation; ++i) {
    const auto consumed = static_cast<size_t>(i);
    if (offset + consumed >= text.size()) return {Utf8Kind::kTruncated, 0xFFFD, consumed};
    const auto byte = static_cast<uint8_t>(text[offset + consumed]);
    if (byte < lead.low || byte > lead.high) return {Utf8Kind::kInvalid, 0xFFFD, consumed};
    value = (value << 6) | (byte & 0x3Fu);
    lead.low = 0x80;
    lead.high = 0xBF;
  }
  return {Utf8Kind::kValid, value, static_cast<size_t>(lead.continuation) + 1};
}

void AppendUtf8(uint32_t code_point, std::string& out) {
  const auto put = [&out](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18));
    put(0x80 | ((code_point >> 12) & 0x3F));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

bool IsValidUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = NextUtf8(text, at);
    if (step.kind != Utf8Kind::kValid) return false;
    at += step.bytes;
  }
  return true;
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = NextUtf8(text, at);
    out += step.kind == Utf8Kind::kValid ? text.substr(at, step.bytes) : kReplacementUtf8;
    at += step.bytes;
  }
  return out;
}

bool IsPythonSpace(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::string_view LeftStripped(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = NextUtf8(text, 0);
    if (!IsPythonSpace(step.code_point)) break;
    text.remove_prefix(step.bytes);
  }
  return text;
}

std::string_view RightStripped(std::string_view text) {
  while (!text.empty()) {
    size_t last = text.size() - 1;  // the begin of the last code point
    while (last > 0 && text.size() - last < 4 && (text[last] & 0xC0) == 0x80) --last;
    const Utf8Step step = NextUtf8(text, last);
    if (!IsPythonSpace(step.code_point)) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

}  // namespace tandem::text
