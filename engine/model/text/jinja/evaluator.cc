#include "engine/model/text/jinja/evaluator.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/base/error.h"
#include "engine/model/text/jinja/format.h"
#include "engine/model/text/jinja/functions.h"
#include "engine/model/text/jinja/operators.h"

namespace tandem::jinja {
namespace {

// Of statements in statements and expressions in expressions, through the macros that they call.
// Without macros the parser's limits keep a template below it.
constexpr int kMaxDepth = 600;

// A loop's iteration costs about as much as so many small operations.
constexpr uint64_t kStepsPerScope = 10;

class Evaluator {
 public:
  Evaluator(Variables variables, Runtime& runtime) : runtime_(runtime) {
    scopes_.push_back(std::move(variables));
  }

  std::string Run(const Block& program) {
    Execute(program);
    return std::move(output_);
  }

 private:
  // What comes after a block: the next statement, or the loop's next iteration, or its end.
  enum class Flow { kNext, kContinue, kBreak };

  // Lives while one statement's block or one expression is under way.
  class Deeper {
   public:
    explicit Deeper(Evaluator& evaluator) : evaluator_(evaluator) {
      if (++evaluator_.depth_ > kMaxDepth) {
        evaluator_.runtime_.Fail("macros call one another too deeply");
      }
    }
    ~Deeper() { --evaluator_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    Evaluator& evaluator_;
  };

  Flow Execute(const Block& block) {
    const Deeper deeper(*this);
    for (const Statement& statement : block) {
      Flow flow = Flow::kNext;
      runtime_.line = statement.line;
      runtime_.Step();
      switch (statement.kind) {
        case StatementKind::kText:
          Write(statement.text);
          break;
        case StatementKind::kOutput:
          Print(Evaluate(*statement.expression));
          break;
        case StatementKind::kIf:
          flow = ExecuteIf(statement);
          break;
        case StatementKind::kFor:
          flow = ExecuteFor(statement);
          break;
        case StatementKind::kSet:
          ExecuteSet(statement);
          break;
        case StatementKind::kBlock:
          flow = ExecuteBlock(statement.body);
          break;
        case StatementKind::kMacro:
          scopes_.back()[statement.text] = Value(Function{&statement});
          break;
        case StatementKind::kBreak:
          return Flow::kBreak;
        case StatementKind::kContinue:
          return Flow::kContinue;
      }
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  void Print(const Value& value) {
    if (const std::string* string = value.string()) {
      Write(*string);
    } else {
      Write(ToText(runtime_, value));
    }
  }

  void Write(std::string_view text) {
    runtime_.Scan(text.size());
    if (output_.size() + text.size() > Runtime::kMaxOutputBytes) {
      runtime_.Fail(fmt::format("the output exceeds {} MiB", Runtime::kMaxOutputBytes >> 20));
    }
    output_ += text;
  }

  Flow ExecuteIf(const Statement& statement) {
    for (const Branch& branch : statement.branches) {
      if (!branch.condition || Truth(Evaluate(*branch.condition))) return Execute(branch.body);
    }
    return Flow::kNext;
  }

  // In a scope of its own.
  Flow ExecuteBlock(const Block& block) {
    scopes_.emplace_back();
    const Flow flow = Execute(block);
    scopes_.pop_back();
    return flow;
  }

  // Binds one name, or several to the elements of `value`, in the innermost scope.
  void Assign(const std::vector<std::string>& targets, const Value& value) {
    if (targets.size() == 1) {
      scopes_.back()[targets[0]] = value;
      return;
    }
    const auto elements = Elements(runtime_, value);
    if (elements->items.size() != targets.size()) {
      runtime_.Fail(fmt::format("cannot unpack {} values into {} names", elements->items.size(),
                                targets.size()));
    }
    for (size_t i = 0; i < targets.size(); ++i) scopes_.back()[targets[i]] = elements->items[i];
  }

  void ExecuteSet(const Statement& statement) {
    Value value = statement.expression ? Evaluate(*statement.expression) : Capture(statement.body);
    if (statement.attribute.empty()) return Assign(statement.targets, value);
    runtime_.line = statement.line;
    const Value* target = Find(statement.targets[0]);
    NamespaceData* space = target == nullptr ? nullptr : target->name_space();
    if (space == nullptr) {
      runtime_.Fail(fmt::format("'{}' is no namespace, so '{}.{}' cannot be set",
                                statement.targets[0], statement.targets[0], statement.attribute));
    }
    SetAttribute(runtime_, *space, statement.attribute, std::move(value));
  }

  // What a block prints, in a scope of its own.
  Value Capture(const Block& block) {
    std::string outer = std::exchange(output_, {});
    ExecuteBlock(block);
    return runtime_.NewString(std::exchange(output_, std::move(outer)));
  }

  // Every iteration gets a scope of its own: what a loop's body sets is gone after it. As in Jinja,
  // "else" is for a loop of which no iteration came to its end, be it that there was none.
  Flow ExecuteFor(const Statement& statement) {
    std::shared_ptr<const ListData> items = Elements(runtime_, Evaluate(*statement.expression));
    if (statement.filter) items = FilterItems(statement, *items);
    bool completed = false;
    for (size_t i = 0; i < items->items.size(); ++i) {
      runtime_.line = statement.line;
      runtime_.Step(kStepsPerScope);
      scopes_.emplace_back();
      scopes_.back()["loop"] = Value(std::make_shared<const LoopData>(LoopData{items, i}));
      Assign(statement.targets, items->items[i]);
      const Flow flow = Execute(statement.body);
      scopes_.pop_back();
      if (flow == Flow::kNext) completed = true;
      if (flow == Flow::kBreak) break;
    }
    return completed ? Flow::kNext : ExecuteBlock(statement.otherwise);
  }

  std::shared_ptr<const ListData> FilterItems(const Statement& statement, const ListData& items) {
    std::vector<Value> kept;
    for (const Value& item : items.items) {
      runtime_.Step(kStepsPerScope);
      scopes_.emplace_back();
      // The loop does not exist yet while its elements are chosen.
      scopes_.back()["loop"] = Runtime::NewUndefined("'loop' is undefined");
      Assign(statement.targets, item);
      if (Truth(Evaluate(*statement.filter))) kept.push_back(item);
      scopes_.pop_back();
    }
    return std::get<std::shared_ptr<const ListData>>(runtime_.NewList(std::move(kept)).data());
  }

  const Value* Find(const std::string& name) const {
    for (size_t scope = scopes_.size(); scope-- > first_scope_;) {
      const auto found = scopes_[scope].find(name);
      if (found != scopes_[scope].end()) return &found->second;
    }
    const auto found = scopes_[0].find(name);
    return found == scopes_[0].end() ? nullptr : &found->second;
  }

  Value Lookup(const std::string& name) const {
    if (const Value* found = Find(name)) return *found;
    if (IsFunction(name) && (name != "strftime_now" || runtime_.now)) {
      return Value(Function());
    }
    return Runtime::NewUndefined(fmt::format("'{}' is undefined", name));
  }

  Value Evaluate(const Expression& node) {
    const Deeper deeper(*this);
    runtime_.Step();
    const auto child = [&](size_t index) { return Evaluate(*node.children[index]); };
    switch (node.kind) {
      case ExpressionKind::kConstant:
        return node.constant;
      case ExpressionKind::kName:
        return Lookup(node.name);
      case ExpressionKind::kAnd: {
        Value left = child(0);
        return Truth(left) ? child(1) : left;
      }
      case ExpressionKind::kOr: {
        Value left = child(0);
        return Truth(left) ? left : child(1);
      }
      case ExpressionKind::kNot:
        return Value(!Truth(child(0)));
      case ExpressionKind::kCompare:
        return Value(CompareAll(node));
      case ExpressionKind::kConditional:
        if (Truth(child(0))) return child(1);
        if (node.children[2]) return child(2);
        return Runtime::NewUndefined("an 'if' without 'else' gave nothing");
      default:
        return Operate(node);
    }
  }

  // The kinds that evaluate all their children.
  Value Operate(const Expression& node) {
    std::vector<Value> values;
    values.reserve(node.children.size());
    for (const ExpressionPtr& child : node.children) {
      values.push_back(child ? Evaluate(*child) : Value(None()));
    }
    runtime_.line = node.line;
    switch (node.kind) {
      case ExpressionKind::kList:
        return runtime_.NewList(std::move(values));
      case ExpressionKind::kTuple:
        return runtime_.NewList(std::move(values), ListKind::kTuple);
      case ExpressionKind::kDict:
        return MakeDict(std::move(values));
      case ExpressionKind::kAttribute:
        return GetAttribute(runtime_, values[0], node.name);
      case ExpressionKind::kItem:
        return GetItem(runtime_, values[0], values[1]);
      case ExpressionKind::kSlice:
        return Slice(runtime_, values[0], values[1], values[2], values[3]);
      case ExpressionKind::kNegate:
        return Negate(runtime_, values[0]);
      case ExpressionKind::kPlus:
        return Plus(runtime_, values[0]);
      case ExpressionKind::kBinary:
        return Arithmetic(runtime_, node.op, values[0], values[1]);
      case ExpressionKind::kFunction:
        return CallByName(node, ToArguments(node, std::move(values), 0));
      default: {
        const Value self = values[0];
        return Call(runtime_, *node.callable, self, ToArguments(node, std::move(values), 1));
      }
    }
  }

  static Arguments ToArguments(const Expression& node, std::vector<Value> values, size_t from) {
    Arguments arguments;
    const size_t named_from = values.size() - node.argument_names.size();
    for (size_t i = from; i < values.size(); ++i) {
      if (i < named_from) {
        arguments.positional.push_back(std::move(values[i]));
      } else {
        arguments.named.emplace_back(node.argument_names[i - named_from], std::move(values[i]));
      }
    }
    return arguments;
  }

  Value MakeDict(std::vector<Value> values) {
    DictData dict;
    for (size_t i = 0; i < values.size(); i += 2) {
      if (const Value* held = FindKey(runtime_, dict, values[i])) {
        *const_cast<Value*>(held) = values[i + 1];
      } else {
        dict.entries.emplace_back(std::move(values[i]), std::move(values[i + 1]));
      }
    }
    return runtime_.NewDict(std::move(dict.entries));
  }

  // a < b < c holds when each pair does; what follows one that does not is never evaluated.
  bool CompareAll(const Expression& node) {
    Value left = Evaluate(*node.children[0]);
    for (size_t i = 0; i < node.ops.size(); ++i) {
      Value right = Evaluate(*node.children[i + 1]);
      runtime_.line = node.line;
      if (!Compare(runtime_, node.ops[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  Value CallByName(const Expression& node, Arguments arguments) {
    const Value* found = Find(node.name);
    if (found == nullptr && IsFunction(node.name)) {
      return CallFunction(runtime_, node.name, std::move(arguments));
    }
    const Value callee = Lookup(node.name);
    runtime_.RequireDefined(callee);
    const auto* function = std::get_if<Function>(&callee.data());
    if (function == nullptr) {
      runtime_.Fail(fmt::format("'{}' is a {}, not a function", node.name, TypeName(callee)));
    }
    if (function->macro == nullptr) {
      runtime_.FailUnsupported(fmt::format("a function by another name, '{}()',", node.name));
    }
    return CallMacro(*function->macro, std::move(arguments));
  }

  // A macro sees the template's own variables as they are when it is called, and its parameters;
  // nothing of its caller's.
  Value CallMacro(const Statement& macro, Arguments arguments) {
    runtime_.Step(kStepsPerScope);
    const size_t callers_scope = std::exchange(first_scope_, scopes_.size());
    scopes_.emplace_back();
    BindParameters(macro, std::move(arguments));
    Value text = Capture(macro.body);
    scopes_.pop_back();
    first_scope_ = callers_scope;
    return text;
  }

  void BindParameters(const Statement& macro, Arguments arguments) {
    const std::vector<std::string>& names = macro.targets;
    if (arguments.positional.size() > names.size()) {
      runtime_.Fail(fmt::format("the macro '{}' takes {} arguments at most, not {}", macro.text,
                                names.size(), arguments.positional.size()));
    }
    BoundArguments bound(names.size());
    std::move(arguments.positional.begin(), arguments.positional.end(), bound.begin());
    for (auto& [name, value] : arguments.named) {
      const auto at =
          static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin());
      if (at == names.size() || bound[at]) {
        runtime_.Fail(
            fmt::format("the macro '{}' cannot take the argument '{}'", macro.text, name));
      }
      bound[at] = std::move(value);
    }
    for (size_t i = 0; i < names.size(); ++i) {
      scopes_.back()[names[i]] =
          bound[i]
              ? *bound[i]
              : Runtime::NewUndefined(fmt::format("the parameter '{}' was not provided", names[i]));
    }
    // A default sees the other parameters: those before it, and later ones that were given.
    for (size_t i = 0; i < names.size(); ++i) {
      runtime_.Step();
      if (bound[i] || !macro.defaults[i]) continue;
      Value value = Evaluate(*macro.defaults[i]);
      scopes_.back()[names[i]] = std::move(value);
    }
  }

  Runtime& runtime_;
  // The template's own first, the innermost last. A macro's own begin at first_scope_; those
  // between are its callers'.
  std::vector<Variables> scopes_;
  size_t first_scope_ = 1;
  int depth_ = 0;
  std::string output_;
};

}  // namespace

std::string Evaluate(const Block& program, Variables variables, Runtime& runtime) {
  return Evaluator(std::move(variables), runtime).Run(program);
}

}  // namespace tandem::jinja
