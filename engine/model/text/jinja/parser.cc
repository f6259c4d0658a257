#include "engine/model/text/jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "engine/model/text/jinja/expression_parser.h"
#include "engine/model/text/jinja/token_stream.h"

namespace tandem::jinja {
namespace {

constexpr size_t kMaxSourceBytes = 512 * 1024;
constexpr size_t kMaxParameters = 100;

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(Lex(source)) {}

  Block Run() {
    Block program = ParseBlock({}, "");
    return program;
  }

 private:
  // Statements up to a tag whose name is one of `ends`, of which the name is left to be read. With
  // no ends, up to the end of the template. `open` is the tag to blame when the template ends.
  Block ParseBlock(std::initializer_list<std::string_view> ends, std::string_view open) {
    const TokenStream::Nesting nesting(tokens_);
    Block block;
    while (true) {
      const Token& token = tokens_.Current();
      switch (token.kind) {
        case TokenKind::kText:
          block.push_back({.kind = StatementKind::kText, .line = token.line, .text = token.text});
          tokens_.Next();
          break;
        case TokenKind::kOutputBegin:
          tokens_.Next();
          block.push_back({.kind = StatementKind::kOutput, .line = token.line});
          block.back().expression = WithoutSafe(ExpressionParser(tokens_).Tuple(true));
          if (tokens_.Next().kind != TokenKind::kOutputEnd) {
            FailSyntax(token.line, "unexpected text in '{{ ... }}', wanted '}}'");
          }
          break;
        case TokenKind::kBlockBegin:
          tokens_.Next();
          for (std::string_view end : ends) {
            if (tokens_.AtName(end)) return block;
          }
          block.push_back(ParseStatement());
          break;
        default:
          if (ends.size() != 0) FailSyntax(token.line, fmt::format("'{}' has no end", open));
          return block;
      }
    }
  }

  // "{{ x|safe }}" prints what "{{ x }}" does.
  static ExpressionPtr WithoutSafe(ExpressionParser::Node node) {
    const bool safe =
        node->kind == ExpressionKind::kFilter && node->name == "safe" && node->children.size() == 1;
    return safe ? std::move(node->children[0]) : std::move(node);
  }

  Statement ParseStatement() {
    const int line = tokens_.line();
    const std::string tag = tokens_.ExpectName();
    Statement statement;
    statement.line = line;
    if (tag == "if") {
      ParseIf(statement);
    } else if (tag == "for") {
      ParseFor(statement);
    } else if (tag == "set") {
      ParseSet(statement);
    } else if (tag == "macro") {
      ParseMacro(statement);
    } else if (tag == "generation") {
      // Marks what the model wrote, for training; it renders as if it were not there.
      statement.kind = StatementKind::kBlock;
      ExpectBlockEnd();
      statement.body = ParseOutsideLoops("endgeneration", "{% generation %}");
      tokens_.Next();  // endgeneration
      ExpectBlockEnd();
    } else if (tag == "break" || tag == "continue") {
      if (open_loops_ == 0) FailSyntax(line, fmt::format("'{{% {} %}}' outside a loop", tag));
      statement.kind = tag == "break" ? StatementKind::kBreak : StatementKind::kContinue;
      ExpectBlockEnd();
    } else if (tag.starts_with("end") || tag == "else" || tag == "elif") {
      FailSyntax(line, fmt::format("'{{% {} %}}' has nothing to belong to", tag));
    } else {
      FailUnsupported(line, fmt::format("'{{% {} %}}'", tag));
    }
    return statement;
  }

  void ExpectBlockEnd() {
    if (tokens_.Current().kind != TokenKind::kBlockEnd) tokens_.FailHere("'%}'");
    tokens_.Next();
  }

  void ParseIf(Statement& statement) {
    statement.kind = StatementKind::kIf;
    while (true) {
      Branch branch;
      branch.condition = ExpressionParser(tokens_).Tuple(false);
      ExpectBlockEnd();
      branch.body = ParseBlock({"elif", "else", "endif"}, "{% if %}");
      statement.branches.push_back(std::move(branch));
      if (!tokens_.SkipName("elif")) break;
    }
    if (tokens_.SkipName("else")) {
      ExpectBlockEnd();
      statement.branches.push_back({nullptr, ParseBlock({"endif"}, "{% else %}")});
    }
    tokens_.Next();  // endif
    ExpectBlockEnd();
  }

  std::string ParseTarget() {
    const int line = tokens_.line();
    const std::string name = tokens_.ExpectName();
    for (std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
      if (name == constant) FailSyntax(line, fmt::format("'{}' cannot be assigned to", name));
    }
    return name;
  }

  // "a", or "a, b", with or without parentheses.
  std::vector<std::string> ParseTargets() {
    const bool parentheses = tokens_.SkipOperator("(");
    std::vector<std::string> targets = {ParseTarget()};
    bool several = false;
    while (tokens_.SkipOperator(",")) {
      several = true;
      if (tokens_.Current().kind != TokenKind::kName || tokens_.AtName("in")) break;
      targets.push_back(ParseTarget());
    }
    if (parentheses) tokens_.ExpectOperator(")");
    if (several && targets.size() == 1) {
      FailUnsupported(tokens_.line(), "unpacking into a single name");
    }
    return targets;
  }

  void ParseFor(Statement& statement) {
    statement.kind = StatementKind::kFor;
    statement.targets = ParseTargets();
    for (const std::string& target : statement.targets) {
      if (target == "loop") FailSyntax(statement.line, "'loop' cannot be a loop's own variable");
    }
    if (!tokens_.SkipName("in")) tokens_.FailHere("'in'");
    statement.expression = ExpressionParser(tokens_).Tuple(false);
    if (tokens_.SkipName("if")) statement.filter = ExpressionParser(tokens_).Conditional();
    if (tokens_.AtName("recursive")) FailUnsupported(tokens_.line(), "a recursive loop");
    ExpectBlockEnd();
    ++open_scopes_;
    ++open_loops_;
    statement.body = ParseBlock({"else", "endfor"}, "{% for %}");
    --open_loops_;
    if (tokens_.SkipName("else")) {
      ExpectBlockEnd();
      statement.otherwise = ParseBlock({"endfor"}, "{% else %}");
    }
    --open_scopes_;
    tokens_.Next();  // endfor
    ExpectBlockEnd();
  }

  void ParseSet(Statement& statement) {
    statement.kind = StatementKind::kSet;
    if (tokens_.Ahead().kind == TokenKind::kOperator && tokens_.Ahead().text == ".") {
      statement.targets = {ParseTarget()};
      tokens_.ExpectOperator(".");
      statement.attribute = tokens_.ExpectName();
    } else {
      statement.targets = ParseTargets();
    }
    if (tokens_.AtOperator("|")) FailUnsupported(statement.line, "a filter on '{% set %}'");
    if (tokens_.SkipOperator("=")) {
      statement.expression = ExpressionParser(tokens_).Tuple(true);
      ExpectBlockEnd();
      return;
    }
    if (statement.targets.size() > 1) tokens_.FailHere("'='");
    ExpectBlockEnd();
    statement.body = ParseOutsideLoops("endset", "{% set %}");
    tokens_.Next();  // endset
    ExpectBlockEnd();
  }

  // A macro inside a loop or another macro would keep their variables alive; none is seen there.
  void ParseMacro(Statement& statement) {
    if (open_scopes_ > 0) {
      FailUnsupported(statement.line, "a macro inside a loop, a macro or another scope");
    }
    statement.kind = StatementKind::kMacro;
    statement.text = ParseTarget();
    tokens_.ExpectOperator("(");
    while (!tokens_.AtOperator(")")) {
      if (!statement.targets.empty()) tokens_.ExpectOperator(",");
      ParseParameter(statement);
    }
    tokens_.ExpectOperator(")");
    ExpectBlockEnd();
    statement.body = ParseOutsideLoops("endmacro", "{% macro %}");
    tokens_.Next();  // endmacro
    ExpectBlockEnd();
  }

  void ParseParameter(Statement& macro) {
    const int line = tokens_.line();
    std::string name = ParseTarget();
    if (std::find(macro.targets.begin(), macro.targets.end(), name) != macro.targets.end()) {
      FailSyntax(line, fmt::format("two parameters are called '{}'", name));
    }
    if (macro.targets.size() == kMaxParameters) {
      FailUnsupported(line, fmt::format("a macro with over {} parameters", kMaxParameters));
    }
    macro.targets.push_back(std::move(name));
    const bool has_default = tokens_.SkipOperator("=");
    if (!has_default && !macro.defaults.empty() && macro.defaults.back()) {
      FailSyntax(line, "a parameter without a default follows one that has one");
    }
    macro.defaults.push_back(has_default ? ExpressionParser(tokens_).Conditional() : nullptr);
  }

  // A block that prints by itself: no break or continue leaves it.
  Block ParseOutsideLoops(std::string_view end, std::string_view open) {
    const int outer_loops = std::exchange(open_loops_, 0);
    ++open_scopes_;
    Block block = ParseBlock({end}, open);
    --open_scopes_;
    open_loops_ = outer_loops;
    return block;
  }

  TokenStream tokens_;
  int open_loops_ = 0;
  int open_scopes_ = 0;  // loops, and blocks that print by themselves
};

}  // namespace

Block Parse(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    FailUnsupported(
        1, fmt::format("a template of {} bytes (over {})", source.size(), kMaxSourceBytes));
  }
  return Parser(source).Run();
}

}  // namespace tandem::jinja
