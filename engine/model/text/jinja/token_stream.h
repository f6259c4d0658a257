// The parser's view of the tokens: one current token, one look ahead, and the limit on nesting that
// keeps the parser's recursion, and every tree it makes, shallow.
//
// Owned by one parse, on one thread.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/model/text/jinja/lexer.h"

namespace tandem::jinja {

class TokenStream {
 public:
  // `tokens` end with kEnd. Fails when a macro names what Jinja would hand it beside its arguments.
  explicit TokenStream(std::vector<Token> tokens);

  const Token& Current() const { return tokens_[at_]; }
  const Token& Ahead() const { return tokens_[at_ + 1 < tokens_.size() ? at_ + 1 : at_]; }
  int line() const { return Current().line; }
  // The current token, which stays valid; the stream moves on, but never past the end.
  const Token& Next();

  bool AtOperator(std::string_view op) const;
  bool AtName(std::string_view name) const;
  bool AheadIsName(std::string_view name) const;
  bool SkipOperator(std::string_view op);
  bool SkipName(std::string_view name);
  void ExpectOperator(std::string_view op);
  // The name that is the current token.
  std::string ExpectName();

  // Whether the template has a {% macro name ... %}, here or further on.
  bool DefinesMacro(std::string_view name) const { return macros_.contains(name); }

  // Fails on the current token: "unexpected ..., wanted ...".
  [[noreturn]] void FailHere(std::string_view wanted) const;

  // Lives while the parser is inside one nested construct.
  class Nesting {
   public:
    explicit Nesting(TokenStream& stream);
    ~Nesting() { --stream_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    TokenStream& stream_;
  };

 private:
  static constexpr int kMaxNesting = 100;

  void FindMacros();

  std::vector<Token> tokens_;
  std::set<std::string, std::less<>> macros_;  // their names
  size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace tandem::jinja
