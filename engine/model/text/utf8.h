// UTF-8 as the tokenizer and the chat templates need it: decode one code point at a time, and
// replace what is not valid. Invalid input follows the Unicode standard's rule of "maximal
// subparts" (Table 3-7 and section 3.9): each longest prefix of a valid sequence becomes one
// U+FFFD, as Python and browsers do. Pure functions; any thread may call them.
//
//   Utf8Step s = NextUtf8(text, 0);   // s.kind, s.code_point, s.bytes
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::text {

enum class Utf8Kind {
  kValid,
  kInvalid,    // `bytes` bytes form no code point
  kTruncated,  // the text ends inside a sequence that is valid so far
};

struct Utf8Step {
  Utf8Kind kind = Utf8Kind::kInvalid;
  uint32_t code_point = 0xFFFD;
  size_t bytes = 1;  // consumed; at least 1
};

inline constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";  // U+FFFD

// Requires offset < text.size().
Utf8Step NextUtf8(std::string_view text, size_t offset);

void AppendUtf8(uint32_t code_point, std::string& out);

bool IsValidUtf8(std::string_view text);

// `text` with every invalid or truncated sequence replaced by U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text);

// What Python's str.isspace says: the Unicode White_Space property and U+001C to U+001F.
bool IsPythonSpace(uint32_t code_point);

// `text`, valid UTF-8, without the whitespace at one end.
std::string_view LeftStripped(std::string_view text);
std::string_view RightStripped(std::string_view text);

}  // namespace tandem::text
