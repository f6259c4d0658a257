// A parsed template: statements that hold expressions. Built by the parser, then immutable; any
// thread may evaluate it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/text/jinja/callable.h"
#include "engine/model/text/jinja/value.h"

namespace tandem::jinja {

enum class ExpressionKind {
  kConstant,     // `constant`
  kName,         // the variable `name`
  kList,         // [children]
  kTuple,        // (children)
  kDict,         // children: key, value, key, value, ...
  kAttribute,    // children[0].name
  kItem,         // children[0][children[1]]
  kSlice,        // children[0][children[1]:children[2]:children[3]], null where left out
  kNegate,       // -children[0]
  kPlus,         // +children[0]
  kNot,          // not children[0]
  kAnd,          // children[0] and children[1]
  kOr,           // children[0] or children[1]
  kBinary,       // children[0] `op` children[1]
  kCompare,      // children[0] `ops[0]` children[1] `ops[1]` children[2] ...
  kConditional,  // children[1] if children[0] else children[2] (null where left out)
  kFilter,       // children[0]|callable(children[1], ...)
  kTest,         // children[0] is callable(children[1], ...)
  kMethod,       // children[0].callable(children[1], ...)
  kFunction,     // the global function or macro `name`(children...)
};

enum class Operator {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kConcatenate,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct Expression {
  ExpressionKind kind = ExpressionKind::kConstant;
  int line = 1;
  int depth = 1;  // of the tree below, bounded by the parser
  Value constant;
  std::string name;
  Operator op = Operator::kAdd;
  std::vector<Operator> ops;
  const Callable* callable = nullptr;
  std::vector<ExpressionPtr> children;
  // The last so many children are arguments given by these names.
  std::vector<std::string> argument_names;
};

struct Statement;
using Block = std::vector<Statement>;

struct Branch {
  ExpressionPtr condition;  // null for "else"
  Block body;
};

enum class StatementKind { kText, kOutput, kIf, kFor, kSet, kBlock, kMacro, kBreak, kContinue };

struct Statement {
  StatementKind kind = StatementKind::kText;
  int line = 1;
  std::string text;              // kText; kMacro: its name
  ExpressionPtr expression;      // kOutput; kFor: what to go through; kSet: the value, or null
  std::vector<Branch> branches;  // kIf
  // kFor, kSet: one name, or several to unpack into; kMacro: its parameters.
  std::vector<std::string> targets;
  std::vector<ExpressionPtr> defaults;  // kMacro: one a parameter, null where there is none
  std::string attribute;                // kSet: of the namespace targets[0], when not empty
  ExpressionPtr filter;                 // kFor: "if ..." behind the sequence; may be null
  Block body;       // kFor, kBlock, kMacro; kSet: prints the value without an expression
  Block otherwise;  // kFor: for an empty sequence
};

}  // namespace tandem::jinja
