// Unicode's normalization form C, which some models' tokenizers put text into first: letters and
// the marks behind them become one code point where there is one, marks come in canonical order.
// Hangul by its rule, everything else by table (Unicode's annex 15 and section 3.11).
//
// Pure; any thread may call it.
//
//   std::string composed = ToNfc("cafe\xCC\x81");  // "caf\xC3\xA9"
#pragma once

#include <string>
#include <string_view>

namespace tandem::text {

// Whether `text` is in form C for certain; text without combining marks and rare letters is.
// `text` must be valid UTF-8, here and below.
bool IsPlainlyNfc(std::string_view text);

// In time n log n at most, whatever the text.
std::string ToNfc(std::string_view text);

}  // namespace tandem::text
