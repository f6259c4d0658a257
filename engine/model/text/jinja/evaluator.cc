#include "engine/model/text/jinja/evaluator.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/base/error.h"
#include "engine/model/text/jinja/format.h"
#include "engine/model/text/jinja/operators.h"

namespace tandem::jinja {
namespace {

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

  Flow Execute(const Block& block) {
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
    SetAttribute(*space, statement.attribute, std::move(value));
  }

  // What a block prints, in a scope of its own.
  Value Capture(const Block& block) {
    std::string outer = std::exchange(output_, {});
    ExecuteBlock(block);
    return runtime_.NewString(std::exchange(output_, std::move(outer)));
  }

  void SetAttribute(NamespaceData& space, const std::string& name, Value value) {
    if (value.name_space() != nullptr) {
      runtime_.FailUnsupported("a namespace as a part of another value");
    }
    for (auto& [key, held] : space.entries) {
      runtime_.Step();
      if (key == name) {
        held = std::move(value);
        return;
      }
    }
    runtime_.Make(name.size() + sizeof(space.entries[0]));
    space.entries.emplace_back(name, std::move(value));
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
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      const auto found = scope->find(name);
      if (found != scope->end()) return &found->second;
    }
    return nullptr;
  }

  Value Lookup(const std::string& name) const {
    if (const Value* found = Find(name)) return *found;
    if (name == "range" || name == "namespace" || name == "raise_exception" ||
        (name == "strftime_now" && runtime_.now)) {
      return Value(Function());
    }
    return Runtime::NewUndefined(fmt::format("'{}' is undefined", name));
  }

  Value Evaluate(const Expression& node) {
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
        return CallFunction(node, ToArguments(node, std::move(values), 0));
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

  Value CallFunction(const Expression& node, Arguments arguments) {
    if (node.name == "namespace") return MakeNamespace(std::move(arguments));
    if (node.name == "range" && arguments.named.empty()) return MakeRange(arguments.positional);
    if (node.name == "raise_exception" && arguments.positional.size() == 1) {
      tandem::Fail(ErrorCode::kInvalidArgument,
                   fmt::format("chat template: {}", ToText(runtime_, arguments.positional[0])));
    }
    if (node.name == "strftime_now" && !runtime_.now) {
      runtime_.FailUnsupported("strftime_now() where no time is given");
    }
    if (node.name == "strftime_now" && arguments.positional.size() == 1 &&
        arguments.positional[0].IsString()) {
      return FormatTime(*arguments.positional[0].string());
    }
    runtime_.Fail(fmt::format("'{}()' cannot take these arguments", node.name));
  }

  Value FormatTime(const std::string& format) {
    // Those that Python and C agree on.
    constexpr std::string_view kConversions = "aAbBdHIjmMpSUwWyYF%";
    constexpr size_t kMaxFormat = 200;
    if (format.size() > kMaxFormat) runtime_.FailUnsupported("strftime_now() of a long format");
    if (format.find('\0') != std::string::npos) runtime_.Fail("a time's format with a NUL");
    for (size_t at = format.find('%'); at != std::string::npos; at = format.find('%', at + 2)) {
      const char conversion = at + 1 < format.size() ? format[at + 1] : '\0';
      if (conversion == '\0' || kConversions.find(conversion) == std::string_view::npos) {
        runtime_.FailUnsupported(fmt::format("strftime_now() with '{}'", format));
      }
    }
    char text[4096];  // no conversion is longer than 20
    const size_t size = std::strftime(text, sizeof text, format.c_str(), &*runtime_.now);
    return runtime_.NewString(std::string(text, size));
  }

  Value MakeNamespace(Arguments arguments) {
    auto space = std::make_shared<NamespaceData>();
    if (arguments.positional.size() > 1) runtime_.Fail("'namespace()' takes one dict at most");
    for (const Value& value : arguments.positional) {
      if (value.dict() == nullptr) runtime_.FailUnsupported("namespace() of anything but a dict");
      for (const auto& [key, held] : value.dict()->entries) {
        if (!key.IsString()) runtime_.Fail("a namespace's attributes are named by strings");
        SetAttribute(*space, *key.string(), held);
      }
    }
    for (auto& [key, held] : arguments.named) SetAttribute(*space, key, std::move(held));
    return Value(std::move(space));
  }

  Value MakeRange(const std::vector<Value>& bounds) {
    constexpr uint64_t kMaxRange = 100'000;  // as Jinja's sandbox
    int64_t parts[3] = {0, 0, 1};            // start, stop, step
    if (bounds.empty() || bounds.size() > 3) runtime_.Fail("'range()' takes 1 to 3 integers");
    for (size_t i = 0; i < bounds.size(); ++i) {
      const auto integer = AsInteger(bounds[i]);
      if (!integer) runtime_.Fail("'range()' takes integers");
      parts[bounds.size() == 1 ? 1 : i] = *integer;
    }
    const auto [start, stop, step] = std::tuple(parts[0], parts[1], parts[2]);
    if (step == 0) runtime_.Fail("'range()' with a step of zero");
    std::vector<Value> items;
    for (int64_t at = start; step > 0 ? at < stop : at > stop;) {
      if (items.size() >= kMaxRange) {
        runtime_.Fail(fmt::format("'range()' with over {} elements", kMaxRange));
      }
      items.emplace_back(at);
      if (__builtin_add_overflow(at, step, &at)) break;
    }
    return runtime_.NewList(std::move(items), ListKind::kRange);
  }

  Runtime& runtime_;
  std::vector<Variables> scopes_;  // innermost last
  std::string output_;
};

}  // namespace

std::string Evaluate(const Block& program, Variables variables, Runtime& runtime) {
  return Evaluator(std::move(variables), runtime).Run(program);
}

}  // namespace tandem::jinja
