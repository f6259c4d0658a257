// Parses expressions, with Jinja's precedence: inline if, or, and, not, comparisons, + -, ~,
// * / // %, unary signs (expression_parser.cc), then operands with attributes, items, calls,
// filters and tests behind them (operand_parser.cc).
//
// Owned by one parse, on one thread.
//
//   ExpressionPtr value = ExpressionParser(tokens).Conditional();
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/model/text/jinja/ast.h"
#include "engine/model/text/jinja/token_stream.h"

namespace tandem::jinja {

class ExpressionParser {
 public:
  using Node = std::unique_ptr<Expression>;

  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  // `a if b else c`, and everything that binds tighter.
  Node Conditional();
  // `a or b`, and everything that binds tighter; an "if" ends it, as behind "for x in".
  Node Or();
  // Items until none follows a comma; one item without a comma is itself. Each is a Conditional,
  // or an Or where conditionals are not allowed.
  Node Tuple(bool allow_conditional);

 private:
  using This = ExpressionParser;

  static Node New(ExpressionKind kind, int line);
  static void Adopt(Expression& parent, Node child);
  static Node Collection(ExpressionKind kind, int line, std::vector<Node> items);
  // `left`, the operator that is the current token, and what `next` parses.
  Node Pair(ExpressionKind kind, Node left, Node (This::*next)());
  Node Binary(Operator op, Node left, Node (This::*next)());
  bool StartsExpression() const;
  static bool IsReserved(std::string_view name);
  Node And();
  Node Not();
  // The comparison that begins at the current token; skips it.
  std::optional<Operator> SkipComparison();
  Node Compare();
  Node Sum();
  Node Concatenation();
  Node Product();
  Node Factor();
  Node Unary(bool with_filters);
  Node Constant(Value value, int line);
  Node Primary();
  Node Name();
  Node List();
  Node Dict();
  Node Postfix(Node node);
  Node Attribute(Node object);
  Node Subscript(Node object);
  // Arguments in parentheses, appended to the children.
  void AddArguments(Expression& node);
  Node CallOf(Node callee);
  Node FiltersAndTests(Node node);
  Node Filter(Node value);
  Node Test(Node value);
  // Whether a test's argument without parentheses follows: "is divisibleby 3".
  bool StartsArgument() const;

  TokenStream& tokens_;
};

}  // namespace tandem::jinja
