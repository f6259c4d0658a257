#include "engine/model/text/jinja/expression_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace tandem::jinja {
namespace {

constexpr int kMaxTreeDepth = 400;

}  // namespace

using Node = ExpressionParser::Node;

Node ExpressionParser::Conditional() {
  const TokenStream::Nesting nesting(tokens_);
  Node value = Or();
  while (tokens_.AtName("if")) {
    const int line = tokens_.Next().line;
    Node condition = Or();
    Node otherwise = tokens_.SkipName("else") ? Conditional() : nullptr;
    Node node = New(ExpressionKind::kConditional, line);
    Adopt(*node, std::move(condition));
    Adopt(*node, std::move(value));
    Adopt(*node, std::move(otherwise));
    value = std::move(node);
  }
  return value;
}

Node ExpressionParser::Or() {
  Node left = And();
  while (tokens_.AtName("or")) left = Pair(ExpressionKind::kOr, std::move(left), &This::And);
  return left;
}

Node ExpressionParser::Tuple(bool allow_conditional) {
  const int line = tokens_.line();
  std::vector<Node> items;
  bool comma = false;
  while (StartsExpression()) {
    items.push_back(allow_conditional ? Conditional() : Or());
    comma = tokens_.SkipOperator(",");
    if (!comma) break;
  }
  if (items.empty()) tokens_.FailHere("an expression");
  if (items.size() == 1 && !comma) return std::move(items[0]);
  return Collection(ExpressionKind::kTuple, line, std::move(items));
}

Node ExpressionParser::New(ExpressionKind kind, int line) {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = line;
  return node;
}

void ExpressionParser::Adopt(Expression& parent, Node child) {
  if (child) parent.depth = std::max(parent.depth, child->depth + 1);
  if (parent.depth > kMaxTreeDepth) {
    FailUnsupported(parent.line, fmt::format("an expression deeper than {}", kMaxTreeDepth));
  }
  parent.children.push_back(std::move(child));
}

Node ExpressionParser::Collection(ExpressionKind kind, int line, std::vector<Node> items) {
  Node node = New(kind, line);
  for (Node& item : items) Adopt(*node, std::move(item));
  return node;
}

Node ExpressionParser::Pair(ExpressionKind kind, Node left, Node (This::*next)()) {
  Node node = New(kind, tokens_.Next().line);
  Adopt(*node, std::move(left));
  Adopt(*node, (this->*next)());
  return node;
}

Node ExpressionParser::Binary(Operator op, Node left, Node (This::*next)()) {
  Node node = Pair(ExpressionKind::kBinary, std::move(left), next);
  node->op = op;
  return node;
}

Node ExpressionParser::And() {
  Node left = Not();
  while (tokens_.AtName("and")) left = Pair(ExpressionKind::kAnd, std::move(left), &This::Not);
  return left;
}

Node ExpressionParser::Not() {
  if (!tokens_.AtName("not")) return Compare();
  const TokenStream::Nesting nesting(tokens_);
  Node node = New(ExpressionKind::kNot, tokens_.Next().line);
  Adopt(*node, Not());
  return node;
}

std::optional<Operator> ExpressionParser::SkipComparison() {
  static constexpr std::pair<std::string_view, Operator> kComparisons[] = {
      {"==", Operator::kEqual},     {"!=", Operator::kNotEqual}, {"<", Operator::kLess},
      {"<=", Operator::kLessEqual}, {">", Operator::kGreater},   {">=", Operator::kGreaterEqual}};
  for (const auto& [spelling, op] : kComparisons) {
    if (tokens_.SkipOperator(spelling)) return op;
  }
  if (tokens_.SkipName("in")) return Operator::kIn;
  if (tokens_.AtName("not") && tokens_.AheadIsName("in")) {
    tokens_.Next();
    tokens_.Next();
    return Operator::kNotIn;
  }
  return std::nullopt;
}

Node ExpressionParser::Compare() {
  const int line = tokens_.line();
  Node first = Sum();
  std::optional<Operator> op = SkipComparison();
  if (!op) return first;
  Node node = New(ExpressionKind::kCompare, line);
  Adopt(*node, std::move(first));
  for (; op; op = SkipComparison()) {
    node->ops.push_back(*op);
    Adopt(*node, Sum());
  }
  return node;
}

Node ExpressionParser::Sum() {
  Node left = Concatenation();
  while (true) {
    if (tokens_.AtOperator("+")) {
      left = Binary(Operator::kAdd, std::move(left), &This::Concatenation);
    } else if (tokens_.AtOperator("-")) {
      left = Binary(Operator::kSubtract, std::move(left), &This::Concatenation);
    } else {
      return left;
    }
  }
}

Node ExpressionParser::Concatenation() {
  Node left = Product();
  while (tokens_.AtOperator("~")) {
    left = Binary(Operator::kConcatenate, std::move(left), &This::Product);
  }
  return left;
}

Node ExpressionParser::Product() {
  static constexpr std::pair<std::string_view, Operator> kProducts[] = {
      {"*", Operator::kMultiply},
      {"/", Operator::kDivide},
      {"//", Operator::kFloorDivide},
      {"%", Operator::kModulo}};
  Node left = Unary(true);
  while (true) {
    if (tokens_.AtOperator("**")) FailUnsupported(tokens_.line(), "the operator '**'");
    const auto* found =
        std::find_if(std::begin(kProducts), std::end(kProducts),
                     [this](const auto& entry) { return tokens_.AtOperator(entry.first); });
    if (found == std::end(kProducts)) return left;
    left = Binary(found->second, std::move(left), &This::Factor);
  }
}

Node ExpressionParser::Factor() { return Unary(true); }

Node ExpressionParser::Unary(bool with_filters) {
  const TokenStream::Nesting nesting(tokens_);
  Node node;
  if (tokens_.AtOperator("-") || tokens_.AtOperator("+")) {
    const Token& sign = tokens_.Next();
    node = New(sign.text == "-" ? ExpressionKind::kNegate : ExpressionKind::kPlus, sign.line);
    Adopt(*node, Unary(false));
  } else {
    node = Primary();
  }
  node = Postfix(std::move(node));
  if (with_filters) node = FiltersAndTests(std::move(node));
  return node;
}

}  // namespace tandem::jinja
