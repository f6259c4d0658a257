// Python's string methods on UTF-8, shared by filters and methods.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/model/text/jinja/value.h"

namespace tandem::jinja {

enum class Side { kLeft, kRight, kBoth };

// Without the characters at the ends that are in `characters`; whitespace when there is none.
Value Strip(Runtime& runtime, const std::string& string,
            const std::optional<std::string_view>& characters, Side side);

// With every `from` replaced, from the left, `limit` times at most (no limit when negative). An
// empty `from` matches around every character, as in Python.
Value Replace(Runtime& runtime, const std::string& string, const std::string& from,
              const std::string& to, int64_t limit);

// Between separators, or at runs of whitespace when there is none.
Value Split(Runtime& runtime, const std::string& string,
            const std::optional<std::string_view>& separator, int64_t limit);

// Case works on ASCII; a string with other letters is refused rather than half-changed.
Value Upper(Runtime& runtime, const std::string& string);
Value Lower(Runtime& runtime, const std::string& string);
Value Capitalize(Runtime& runtime, const std::string& string);
// A capital after everything that is no letter, as str.title() does.
Value TitleByLetters(Runtime& runtime, const std::string& string);
// A capital after whitespace and -({[<, as the filter "title" does.
Value TitleByWords(Runtime& runtime, const std::string& string);

}  // namespace tandem::jinja
