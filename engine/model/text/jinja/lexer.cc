#include "engine/model/text/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "engine/base/error.h"
#include "engine/model/text/utf8.h"

namespace tandem::jinja {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsNamePart(char c) { return IsNameStart(c) || IsDigit(c); }

// Line ends become "\n", and the one at the end of the template goes.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out.push_back(source[i]);
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

constexpr std::array<std::string_view, 6> kTwoCharacterOperators = {
    "//", "**", "==", "!=", ">=", "<="};
constexpr std::string_view kOneCharacterOperators = "+-*/%~[](){}<>=.:|,;";

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeNewlines(source)) {}

  std::vector<Token> Run() {
    while (at_ < source_.size()) {
      const size_t tag = FindTag(at_);
      const char opening = tag == std::string::npos ? '\0' : source_[tag + 1];
      const size_t end = tag == std::string::npos ? source_.size() : tag;
      char sign = '\0';
      if (opening != '\0' && tag + 2 < source_.size()) sign = source_[tag + 2];
      LexText(end, opening, sign);
      if (opening == '\0') break;
      at_ = tag + 2 + (sign == '-' || sign == '+' ? 1 : 0);
      if (opening == '#') {
        SkipComment();
      } else {
        LexTag(opening);
      }
    }
    Add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  void Add(TokenKind kind, std::string text) { tokens_.push_back({kind, line_, std::move(text)}); }

  // Moves to `to`, counting lines.
  void Advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<int64_t>(at_),
                                         source_.begin() + static_cast<int64_t>(to), '\n'));
    at_ = to;
  }

  bool Ahead(std::string_view wanted) const {
    return std::string_view(source_).substr(at_).starts_with(wanted);
  }

  size_t FindTag(size_t from) const {
    for (size_t i = from; i + 1 < source_.size(); ++i) {
      const char next = source_[i + 1];
      if (source_[i] == '{' && (next == '{' || next == '%' || next == '#')) return i;
    }
    return std::string::npos;
  }

  // The end of the whitespace that begins at `from`.
  size_t SkipSpace(size_t from) const {
    while (from < source_.size()) {
      const text::Utf8Step step = text::NextUtf8(source_, from);
      if (!text::IsPythonSpace(step.code_point)) break;
      from += step.bytes;
    }
    return from;
  }

  // Text up to `end`, where a tag of kind `opening` begins with `sign`.
  void LexText(size_t end, char opening, char sign) {
    std::string_view piece = std::string_view(source_).substr(at_, end - at_);
    if (opening != '\0' && sign == '-') {
      piece = piece.substr(0, text::RightStripped(piece).size());
    } else if ((opening == '%' || opening == '#') && sign != '+') {
      const size_t newline = piece.rfind('\n');
      const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      // Whitespace alone before the tag on its line.
      if ((line_begin > 0 || at_line_start_) &&
          text::RightStripped(piece.substr(line_begin)).empty()) {
        piece = piece.substr(0, line_begin);
      }
    }
    if (!piece.empty()) Add(TokenKind::kText, std::string(piece));
    Advance(end);
  }

  // After the end of a tag: what whitespace control swallows.
  void EndTag(size_t end, char sign, bool swallow_newline) {
    size_t to = end;
    if (sign == '-') {
      to = SkipSpace(end);
    } else if (sign != '+' && swallow_newline && to < source_.size() && source_[to] == '\n') {
      ++to;
    }
    at_line_start_ = source_[to - 1] == '\n';
    Advance(to);
  }

  void SkipComment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) FailSyntax(line_, "a comment '{#' has no end '#}'");
    const char sign = end > at_ ? source_[end - 1] : '\0';
    EndTag(end + 2, sign, true);
  }

  void LexTag(char opening) {
    const bool output = opening == '{';
    const std::string_view close = output ? "}}" : "%}";
    Add(output ? TokenKind::kOutputBegin : TokenKind::kBlockBegin, "");
    brackets_.clear();
    while (true) {
      Advance(SkipSpace(at_));
      if (at_ >= source_.size()) return;  // the parser says what is missing
      if (brackets_.empty()) {
        const char sign = Ahead("-") || (!output && Ahead("+")) ? source_[at_] : '\0';
        const size_t skip = sign == '\0' ? 0 : 1;
        if (std::string_view(source_).substr(at_ + skip).starts_with(close)) {
          Add(output ? TokenKind::kOutputEnd : TokenKind::kBlockEnd, "");
          EndTag(at_ + skip + 2, sign, !output);
          return;
        }
      }
      LexInside();
    }
  }

  void LexInside() {
    const char c = source_[at_];
    if (IsNameStart(c)) {
      size_t end = at_;
      while (end < source_.size() && IsNamePart(source_[end])) ++end;
      std::string name = source_.substr(at_, end - at_);
      // Inside {% raw %} nothing is a tag, so it cannot wait for the parser.
      if (name == "raw" && tokens_.back().kind == TokenKind::kBlockBegin) {
        FailUnsupported(line_, "{% raw %}");
      }
      Add(TokenKind::kName, std::move(name));
      at_ = end;
    } else if (IsDigit(c)) {
      LexNumber();
    } else if (c == '\'' || c == '"') {
      LexString(c);
    } else {
      LexOperator();
    }
  }

  void LexOperator() {
    for (std::string_view two : kTwoCharacterOperators) {
      if (Ahead(two)) {
        Add(TokenKind::kOperator, std::string(two));
        at_ += 2;
        return;
      }
    }
    const char c = source_[at_];
    if (kOneCharacterOperators.find(c) == std::string_view::npos) {
      const size_t bytes = text::NextUtf8(source_, at_).bytes;
      FailSyntax(line_, fmt::format("unexpected '{}' in a tag", source_.substr(at_, bytes)));
    }
    if (c == '(' || c == '[' || c == '{') brackets_.push_back(c);
    if (c == ')' || c == ']' || c == '}') {
      const char partner = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (brackets_.empty() || brackets_.back() != partner) {
        FailSyntax(line_, fmt::format("unexpected '{}'", c));
      }
      brackets_.pop_back();
    }
    Add(TokenKind::kOperator, std::string(1, c));
    ++at_;
  }

  std::string Digits() {
    std::string digits;
    while (at_ < source_.size() &&
           (IsDigit(source_[at_]) ||
            (source_[at_] == '_' && at_ + 1 < source_.size() && IsDigit(source_[at_ + 1])))) {
      if (source_[at_] != '_') digits.push_back(source_[at_]);
      ++at_;
    }
    return digits;
  }

  void LexNumber() {
    // In "messages.0.role" the number is a key, never the start of "0.5".
    const bool key = tokens_.back().kind == TokenKind::kOperator && tokens_.back().text == ".";
    std::string number = Digits();
    const size_t whole = number.size();
    const auto digit_at = [this](size_t at) { return at < source_.size() && IsDigit(source_[at]); };
    if (!key && Ahead(".") && digit_at(at_ + 1)) {
      ++at_;
      number += '.';
      number += Digits();
    }
    if (!key && (Ahead("e") || Ahead("E"))) {
      const size_t sign =
          at_ + 1 < source_.size() && (source_[at_ + 1] == '+' || source_[at_ + 1] == '-') ? 1 : 0;
      if (digit_at(at_ + 1 + sign)) {
        number += 'e';
        if (sign == 1) number += source_[at_ + 1];
        at_ += 1 + sign;
        number += Digits();
      }
    }
    if (at_ < source_.size() && IsNamePart(source_[at_])) {
      FailUnsupported(line_, fmt::format("the number '{}{}...'", number, source_[at_]));
    }
    if (number.size() == whole) {
      AddInteger(number);
    } else {
      AddFloat(number);
    }
  }

  void AddInteger(const std::string& digits) {
    if (digits.size() > 1 && digits[0] == '0' && digits.find_first_not_of('0') < digits.size()) {
      FailSyntax(line_, fmt::format("the number '{}' begins with 0", digits));
    }
    Token token{TokenKind::kInteger, line_, digits};
    const auto result =
        std::from_chars(digits.data(), digits.data() + digits.size(), token.integer);
    if (result.ec != std::errc()) {
      FailUnsupported(line_, fmt::format("the number {} beyond 64 bits", digits));
    }
    tokens_.push_back(std::move(token));
  }

  void AddFloat(const std::string& number) {
    Token token{TokenKind::kFloat, line_, number};
    const auto result = std::from_chars(number.data(), number.data() + number.size(), token.real);
    if (result.ec != std::errc()) {
      FailUnsupported(line_, fmt::format("the number {} beyond a double", number));
    }
    tokens_.push_back(std::move(token));
  }

  void LexString(char quote) {
    const int begin_line = line_;
    std::string value;
    size_t at = at_ + 1;
    while (at < source_.size() && source_[at] != quote) {
      if (source_[at] != '\\') {
        value.push_back(source_[at++]);
        continue;
      }
      if (++at >= source_.size()) break;
      at = LexEscape(at, value);
    }
    if (at >= source_.size()) FailSyntax(begin_line, "a string has no end");
    Advance(at + 1);
    tokens_.push_back({TokenKind::kString, begin_line, std::move(value)});
  }

  // Python's escapes. `at` is behind the backslash; returns where to go on.
  size_t LexEscape(size_t at, std::string& value) {
    static constexpr std::string_view kNames = "\\'\"abfnrtv";
    static constexpr std::string_view kBytes = "\\'\"\a\b\f\n\r\t\v";
    const char c = source_[at];
    if (const size_t known = kNames.find(c); known != std::string_view::npos) {
      value.push_back(kBytes[known]);
      return at + 1;
    }
    if (c == '\n') return at + 1;
    if (c == 'x') return LexCodePoint(at + 1, 2, 16, value);
    if (c == 'u') return LexCodePoint(at + 1, 4, 16, value);
    if (c == 'U') return LexCodePoint(at + 1, 8, 16, value);
    if (c >= '0' && c <= '7') {
      size_t digits = 1;
      while (digits < 3 && at + digits < source_.size() && source_[at + digits] >= '0' &&
             source_[at + digits] <= '7') {
        ++digits;
      }
      return LexCodePoint(at, digits, 8, value);
    }
    if (c == 'N') FailUnsupported(line_, "the escape \\N{...}");
    value.push_back('\\');
    value.push_back(c);
    return at + 1;
  }

  size_t LexCodePoint(size_t at, size_t digits, int base, std::string& value) {
    uint32_t code_point = 0;
    const char* begin = source_.data() + at;
    const char* end = source_.data() + std::min(at + digits, source_.size());
    const auto result = std::from_chars(begin, end, code_point, base);
    const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
    if (result.ec != std::errc() || result.ptr != begin + digits || code_point > 0x10FFFF ||
        surrogate) {
      FailSyntax(line_, "a string has an escape that is no character");
    }
    text::AppendUtf8(code_point, value);
    return at + digits;
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<char> brackets_;  // open in the current tag
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> Lex(std::string_view source) { return Lexer(source).Run(); }

void FailSyntax(int line, std::string_view what) {
  Fail(ErrorCode::kModelFile, fmt::format("chat template: line {}: {}", line, what));
}

void FailUnsupported(int line, std::string_view construct) {
  Fail(ErrorCode::kUnsupported,
       fmt::format("chat template: line {}: {} is outside the part of Jinja that tandem reads",
                   line, construct));
}

}  // namespace tandem::jinja
