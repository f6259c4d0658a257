#include "engine/model/text/jinja/token_stream.h"

#include <fmt/format.h>

namespace tandem::jinja {
namespace {

std::string Describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
      return "text";
    case TokenKind::kOutputBegin:
      return "'{{'";
    case TokenKind::kOutputEnd:
      return "'}}'";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return fmt::format("'{}'", token.text);
  }
}

}  // namespace

TokenStream::TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) { FindMacros(); }

void TokenStream::FindMacros() {
  bool inside = false;
  for (size_t i = 1; i + 1 < tokens_.size(); ++i) {
    const Token& token = tokens_[i];
    if (token.kind != TokenKind::kName) continue;
    const Token& before = tokens_[i - 1];
    if (before.kind == TokenKind::kBlockBegin && token.text == "macro") {
      inside = true;
      if (tokens_[i + 1].kind == TokenKind::kName) macros_.insert(tokens_[i + 1].text);
    } else if (before.kind == TokenKind::kBlockBegin && token.text == "endmacro") {
      inside = false;
    } else if (inside && (before.kind != TokenKind::kOperator || before.text != ".")) {
      for (std::string_view implicit : {"caller", "varargs", "kwargs"}) {
        if (token.text == implicit) {
          FailUnsupported(token.line, fmt::format("'{}' in a macro", implicit));
        }
      }
    }
  }
}

const Token& TokenStream::Next() {
  const Token& token = Current();
  if (token.kind != TokenKind::kEnd) ++at_;
  return token;
}

bool TokenStream::AtOperator(std::string_view op) const {
  return Current().kind == TokenKind::kOperator && Current().text == op;
}

bool TokenStream::AtName(std::string_view name) const {
  return Current().kind == TokenKind::kName && Current().text == name;
}

bool TokenStream::AheadIsName(std::string_view name) const {
  return Ahead().kind == TokenKind::kName && Ahead().text == name;
}

bool TokenStream::SkipOperator(std::string_view op) {
  const bool here = AtOperator(op);
  if (here) Next();
  return here;
}

bool TokenStream::SkipName(std::string_view name) {
  const bool here = AtName(name);
  if (here) Next();
  return here;
}

void TokenStream::ExpectOperator(std::string_view op) {
  if (!SkipOperator(op)) FailHere(fmt::format("'{}'", op));
}

std::string TokenStream::ExpectName() {
  if (Current().kind != TokenKind::kName) FailHere("a name");
  return Next().text;
}

void TokenStream::FailHere(std::string_view wanted) const {
  FailSyntax(line(), fmt::format("unexpected {}, wanted {}", Describe(Current()), wanted));
}

TokenStream::Nesting::Nesting(TokenStream& stream) : stream_(stream) {
  if (++stream_.nesting_ > kMaxNesting) {
    FailUnsupported(stream_.line(), fmt::format("nesting deeper than {}", kMaxNesting));
  }
}

}  // namespace tandem::jinja
