#include "engine/model/text/jinja/strings.h"

#include <algorithm>

#include "engine/model/text/utf8.h"

namespace tandem::jinja {
namespace {

char ToUpper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }
char ToLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool IsLetter(char c) { return ToUpper(c) != ToLower(c); }

// A copy to change the case of.
std::string AsciiCopy(Runtime& runtime, const std::string& string) {
  runtime.Scan(string.size());
  if (std::any_of(string.begin(), string.end(), [](char c) { return (c & 0x80) != 0; })) {
    runtime.FailUnsupported("changing the case of text beyond ASCII");
  }
  return string;
}

// Whether `set` has the code point that `character` encodes.
bool Has(std::string_view set, std::string_view character) {
  // UTF-8 synchronises itself: a match cannot begin inside another character.
  return set.find(character) != std::string_view::npos;
}

std::string_view LeftStripped(std::string_view text, std::string_view characters) {
  while (!text.empty()) {
    const size_t bytes = text::NextUtf8(text, 0).bytes;
    if (!Has(characters, text.substr(0, bytes))) break;
    text.remove_prefix(bytes);
  }
  return text;
}

std::string_view RightStripped(std::string_view text, std::string_view characters) {
  while (!text.empty()) {
    size_t last = text.size() - 1;
    while (last > 0 && (text[last] & 0xC0) == 0x80) --last;
    if (!Has(characters, text.substr(last))) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

}  // namespace

Value Strip(Runtime& runtime, const std::string& string,
            const std::optional<std::string_view>& characters, Side side) {
  runtime.Scan(string.size());
  if (characters) runtime.Scan(characters->size());
  std::string_view rest = string;
  if (side != Side::kRight) {
    rest = characters ? LeftStripped(rest, *characters) : text::LeftStripped(rest);
  }
  if (side != Side::kLeft) {
    rest = characters ? RightStripped(rest, *characters) : text::RightStripped(rest);
  }
  return runtime.NewString(std::string(rest));
}

Value Replace(Runtime& runtime, const std::string& string, const std::string& from,
              const std::string& to, int64_t limit) {
  runtime.Scan(string.size());
  std::string out;
  size_t at = 0;
  const auto put = [&](std::string_view piece) {
    runtime.Make(piece.size());
    out += piece;
  };
  while (limit != 0) {
    const size_t found = string.find(from, at);
    if (found == std::string::npos) break;
    runtime.Step();
    put(std::string_view(string).substr(at, found - at));
    put(to);
    at = found + from.size();
    --limit;
    if (!from.empty()) continue;
    if (at == string.size()) break;
    const size_t bytes = text::NextUtf8(string, at).bytes;
    put(std::string_view(string).substr(at, bytes));
    at += bytes;
  }
  put(std::string_view(string).substr(at));
  return runtime.NewString(std::move(out));
}

Value Split(Runtime& runtime, const std::string& string,
            const std::optional<std::string_view>& separator, int64_t limit) {
  runtime.Scan(string.size());
  if (separator && separator->empty()) runtime.Fail("split() with an empty separator");
  std::vector<Value> pieces;
  const auto put = [&](std::string_view piece) {
    pieces.push_back(runtime.NewString(std::string(piece)));
  };
  std::string_view rest = string;
  if (separator) {
    for (; limit != 0; --limit) {
      const size_t found = rest.find(*separator);
      if (found == std::string_view::npos) break;
      put(rest.substr(0, found));
      rest.remove_prefix(found + separator->size());
    }
    put(rest);
    return runtime.NewList(std::move(pieces));
  }
  for (rest = text::LeftStripped(rest); !rest.empty(); rest = text::LeftStripped(rest)) {
    if (limit-- == 0) {
      put(rest);
      break;
    }
    size_t end = 0;
    while (end < rest.size()) {
      const text::Utf8Step step = text::NextUtf8(rest, end);
      if (text::IsPythonSpace(step.code_point)) break;
      end += step.bytes;
    }
    put(rest.substr(0, end));
    rest.remove_prefix(end);
  }
  return runtime.NewList(std::move(pieces));
}

Value Upper(Runtime& runtime, const std::string& string) {
  std::string out = AsciiCopy(runtime, string);
  std::transform(out.begin(), out.end(), out.begin(), ToUpper);
  return runtime.NewString(std::move(out));
}

Value Lower(Runtime& runtime, const std::string& string) {
  std::string out = AsciiCopy(runtime, string);
  std::transform(out.begin(), out.end(), out.begin(), ToLower);
  return runtime.NewString(std::move(out));
}

Value Capitalize(Runtime& runtime, const std::string& string) {
  std::string out = AsciiCopy(runtime, string);
  std::transform(out.begin(), out.end(), out.begin(), ToLower);
  if (!out.empty()) out[0] = ToUpper(out[0]);
  return runtime.NewString(std::move(out));
}

Value TitleByLetters(Runtime& runtime, const std::string& string) {
  std::string out = AsciiCopy(runtime, string);
  bool in_word = false;
  for (char& c : out) {
    c = in_word ? ToLower(c) : ToUpper(c);
    in_word = IsLetter(c);
  }
  return runtime.NewString(std::move(out));
}

Value TitleByWords(Runtime& runtime, const std::string& string) {
  std::string out = AsciiCopy(runtime, string);
  bool in_word = false;
  for (char& c : out) {
    const bool boundary = text::IsPythonSpace(static_cast<uint32_t>(c)) ||
                          std::string_view("-({[<").find(c) != std::string_view::npos;
    c = in_word ? ToLower(c) : ToUpper(c);
    in_word = !boundary;
  }
  return runtime.NewString(std::move(out));
}

}  // namespace tandem::jinja
