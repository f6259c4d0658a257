// The half of ExpressionParser that reads operands: literals, names, and what stands behind them.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "engine/model/text/jinja/expression_parser.h"
#include "engine/model/text/jinja/functions.h"

namespace tandem::jinja {
namespace {

constexpr std::array<std::string_view, 9> kReserved = {"and",  "or", "not",  "in",       "is",
                                                       "else", "if", "elif", "recursive"};

}  // namespace

using Node = ExpressionParser::Node;

bool ExpressionParser::StartsExpression() const {
  const Token& token = tokens_.Current();
  switch (token.kind) {
    case TokenKind::kString:
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return true;
    case TokenKind::kName:
      return token.text == "not" || !IsReserved(token.text);
    case TokenKind::kOperator:
      return std::string_view("([{-+").find(token.text[0]) != std::string_view::npos;
    default:
      return false;
  }
}

bool ExpressionParser::IsReserved(std::string_view name) {
  return std::find(kReserved.begin(), kReserved.end(), name) != kReserved.end();
}

Node ExpressionParser::Constant(Value value, int line) {
  Node node = New(ExpressionKind::kConstant, line);
  node->constant = std::move(value);
  return node;
}

Node ExpressionParser::Primary() {
  const Token& token = tokens_.Current();
  switch (token.kind) {
    case TokenKind::kName:
      return Name();
    case TokenKind::kString: {
      std::string joined;
      while (tokens_.Current().kind == TokenKind::kString) joined += tokens_.Next().text;
      return Constant(Value(std::make_shared<const std::string>(std::move(joined))), token.line);
    }
    case TokenKind::kInteger:
      return Constant(Value(tokens_.Next().integer), token.line);
    case TokenKind::kFloat:
      return Constant(Value(tokens_.Next().real), token.line);
    default:
      break;
  }
  if (tokens_.SkipOperator("(")) {
    // "()" is the empty tuple.
    Node node = tokens_.AtOperator(")") ? New(ExpressionKind::kTuple, token.line) : Tuple(true);
    tokens_.ExpectOperator(")");
    return node;
  }
  if (tokens_.AtOperator("[")) return List();
  if (tokens_.AtOperator("{")) return Dict();
  tokens_.FailHere("an expression");
}

Node ExpressionParser::Name() {
  const Token& token = tokens_.Next();
  const std::string& name = token.text;
  if (name == "true" || name == "True") return Constant(Value(true), token.line);
  if (name == "false" || name == "False") return Constant(Value(false), token.line);
  if (name == "none" || name == "None") return Constant(Value(None()), token.line);
  if (IsReserved(name)) {
    FailSyntax(token.line, fmt::format("unexpected '{}', wanted an expression", name));
  }
  Node node = New(ExpressionKind::kName, token.line);
  node->name = name;
  return node;
}

Node ExpressionParser::List() {
  const int line = tokens_.Next().line;
  std::vector<Node> items;
  while (!tokens_.AtOperator("]")) {
    if (!items.empty()) {
      tokens_.ExpectOperator(",");
      if (tokens_.AtOperator("]")) break;
    }
    items.push_back(Conditional());
  }
  tokens_.ExpectOperator("]");
  return Collection(ExpressionKind::kList, line, std::move(items));
}

Node ExpressionParser::Dict() {
  const int line = tokens_.Next().line;
  std::vector<Node> items;
  while (!tokens_.AtOperator("}")) {
    if (!items.empty()) {
      tokens_.ExpectOperator(",");
      if (tokens_.AtOperator("}")) break;
    }
    items.push_back(Conditional());
    tokens_.ExpectOperator(":");
    items.push_back(Conditional());
  }
  tokens_.ExpectOperator("}");
  return Collection(ExpressionKind::kDict, line, std::move(items));
}

Node ExpressionParser::Postfix(Node node) {
  while (true) {
    if (tokens_.AtOperator(".")) {
      node = Attribute(std::move(node));
    } else if (tokens_.AtOperator("[")) {
      node = Subscript(std::move(node));
    } else if (tokens_.AtOperator("(")) {
      node = CallOf(std::move(node));
    } else {
      return node;
    }
  }
}

Node ExpressionParser::Attribute(Node object) {
  const int line = tokens_.Next().line;
  if (tokens_.Current().kind == TokenKind::kInteger) {
    Node node = New(ExpressionKind::kItem, line);
    Adopt(*node, std::move(object));
    Adopt(*node, Constant(Value(tokens_.Next().integer), line));
    return node;
  }
  Node node = New(ExpressionKind::kAttribute, line);
  node->name = tokens_.ExpectName();
  Adopt(*node, std::move(object));
  return node;
}

Node ExpressionParser::Subscript(Node object) {
  const int line = tokens_.Next().line;
  std::vector<Node> parts;
  Node first = tokens_.AtOperator(":") ? nullptr : Conditional();
  const bool slice = tokens_.AtOperator(":");
  Node node = New(slice ? ExpressionKind::kSlice : ExpressionKind::kItem, line);
  Adopt(*node, std::move(object));
  Adopt(*node, std::move(first));
  for (int part = 0; slice && part < 2; ++part) {
    const bool given =
        tokens_.SkipOperator(":") && !tokens_.AtOperator(":") && !tokens_.AtOperator("]");
    Adopt(*node, given ? Conditional() : nullptr);
  }
  tokens_.ExpectOperator("]");
  return node;
}

void ExpressionParser::AddArguments(Expression& node) {
  tokens_.ExpectOperator("(");
  while (!tokens_.AtOperator(")")) {
    if (tokens_.AtOperator("*") || tokens_.AtOperator("**")) {
      FailUnsupported(tokens_.line(),
                      fmt::format("the argument list '{}...'", tokens_.Current().text));
    }
    const bool named = tokens_.Current().kind == TokenKind::kName &&
                       tokens_.Ahead().kind == TokenKind::kOperator && tokens_.Ahead().text == "=";
    if (named) {
      node.argument_names.push_back(tokens_.ExpectName());
      tokens_.ExpectOperator("=");
    } else if (!node.argument_names.empty()) {
      FailSyntax(tokens_.line(), "an argument without a name follows one with a name");
    }
    Adopt(node, Conditional());
    if (!tokens_.SkipOperator(",")) break;
  }
  tokens_.ExpectOperator(")");
}

Node ExpressionParser::CallOf(Node callee) {
  if (callee->kind == ExpressionKind::kName) {
    if (!IsFunction(callee->name) && !tokens_.DefinesMacro(callee->name)) {
      FailUnsupported(callee->line, fmt::format("the function '{}()'", callee->name));
    }
    callee->kind = ExpressionKind::kFunction;
    AddArguments(*callee);
    return callee;
  }
  if (callee->kind == ExpressionKind::kAttribute) {
    callee->callable = FindMethod(callee->name);
    if (callee->callable == nullptr) {
      FailUnsupported(callee->line, fmt::format("the method '.{}()'", callee->name));
    }
    callee->kind = ExpressionKind::kMethod;
    AddArguments(*callee);
    return callee;
  }
  FailUnsupported(tokens_.line(), "calling an expression");
}

Node ExpressionParser::FiltersAndTests(Node node) {
  while (true) {
    if (tokens_.AtOperator("|")) {
      node = Filter(std::move(node));
    } else if (tokens_.AtName("is")) {
      node = Test(std::move(node));
    } else if (tokens_.AtOperator("(")) {
      node = CallOf(std::move(node));
    } else {
      return node;
    }
  }
}

Node ExpressionParser::Filter(Node value) {
  Node node = New(ExpressionKind::kFilter, tokens_.Next().line);
  node->name = tokens_.ExpectName();
  node->callable = FindFilter(node->name);
  if (node->callable == nullptr) {
    FailUnsupported(node->line, fmt::format("the filter '{}'", node->name));
  }
  Adopt(*node, std::move(value));
  if (tokens_.AtOperator("(")) AddArguments(*node);
  return node;
}

Node ExpressionParser::Test(Node value) {
  Node node = New(ExpressionKind::kTest, tokens_.Next().line);
  const bool negated = tokens_.SkipName("not");
  node->name = tokens_.ExpectName();
  node->callable = FindTest(node->name);
  if (node->callable == nullptr) {
    FailUnsupported(node->line, fmt::format("the test 'is {}'", node->name));
  }
  Adopt(*node, std::move(value));
  if (tokens_.AtOperator("(")) {
    AddArguments(*node);
  } else if (StartsArgument()) {
    if (tokens_.AtName("is")) FailSyntax(tokens_.line(), "tests with 'is' cannot be chained");
    Adopt(*node, Postfix(Primary()));
  }
  if (!negated) return node;
  Node inverse = New(ExpressionKind::kNot, node->line);
  Adopt(*inverse, std::move(node));
  return inverse;
}

bool ExpressionParser::StartsArgument() const {
  // To Jinja any name but these begins an argument: "x is string if y" is a mistake there too.
  if (tokens_.Current().kind == TokenKind::kName) {
    return !tokens_.AtName("else") && !tokens_.AtName("or") && !tokens_.AtName("and");
  }
  return StartsExpression() && !tokens_.AtOperator("+") && !tokens_.AtOperator("-");
}

}  // namespace tandem::jinja
