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
