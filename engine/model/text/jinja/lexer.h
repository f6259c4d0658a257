// Cuts a template into tokens: text, tags, and what is inside tags. Whitespace control happens
// here, with Jinja's trim_blocks and lstrip_blocks on, as chat models' templates expect: a block
// tag swallows the newline after it and the spaces before it on its line; "-" swallows all
// whitespace on its side, "+" none.
//
// A pure function; any thread may call it.
//
//   std::vector<Token> tokens = Lex("Hi {{ name }}");   // ends with kEnd
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::jinja {

enum class TokenKind {
  kText,         // outside tags
  kOutputBegin,  // {{
  kOutputEnd,    // }}
  kBlockBegin,   // {%
  kBlockEnd,     // %}
  kName,
  kString,  // `text` with its escapes resolved
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;
  int64_t integer = 0;
  double real = 0;
};

// Throws Error(kModelFile) for a template that is no Jinja, Error(kUnsupported) for Jinja outside
// the subset.
std::vector<Token> Lex(std::string_view source);

// The two ways in which reading a template fails. The message names the line.
[[noreturn]] void FailSyntax(int line, std::string_view what);
[[noreturn]] void FailUnsupported(int line, std::string_view construct);

}  // namespace tandem::jinja
