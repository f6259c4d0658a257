// The tests: {{ value is name(argument) }}.

#include <fmt/format.h>

#include <algorithm>

#include "engine/model/text/jinja/callable.h"
#include "engine/model/text/jinja/operators.h"

namespace tandem::jinja {
namespace {

Value IsDefined(Runtime&, const Value& self, const BoundArguments&) {
  return Value(!self.IsUndefined());
}
Value IsUndefined(Runtime&, const Value& self, const BoundArguments&) {
  return Value(self.IsUndefined());
}
Value IsNone(Runtime&, const Value& self, const BoundArguments&) { return Value(self.IsNone()); }
Value IsString(Runtime&, const Value& self, const BoundArguments&) {
  return Value(self.IsString());
}
Value IsMapping(Runtime&, const Value& self, const BoundArguments&) {
  return Value(self.dict() != nullptr);
}
// An undefined value is an empty sequence to Jinja.
Value IsSequence(Runtime&, const Value& self, const BoundArguments&) {
  return Value(self.IsString() || self.list() != nullptr || self.dict() != nullptr ||
               self.IsUndefined());
}
Value IsTrue(Runtime&, const Value& self, const BoundArguments&) {
  return Value(self.boolean() != nullptr && *self.boolean());
}
Value IsFalse(Runtime&, const Value& self, const BoundArguments&) {
  return Value(self.boolean() != nullptr && !*self.boolean());
}
Value IsBoolean(Runtime&, const Value& self, const BoundArguments&) {
  return Value(self.boolean() != nullptr);
}
Value IsInteger(Runtime&, const Value& self, const BoundArguments&) {
  return Value(self.integer() != nullptr);
}
Value IsFloat(Runtime&, const Value& self, const BoundArguments&) {
  return Value(self.real() != nullptr);
}
Value IsNumber(Runtime&, const Value& self, const BoundArguments&) {
  return Value(AsReal(self).has_value());
}

bool Divides(Runtime& runtime, const Value& self, const Value& divisor) {
  const Value remainder = Arithmetic(runtime, Operator::kModulo, self, divisor);
  return Equal(runtime, remainder, Value(int64_t{0}));
}
Value IsEven(Runtime& runtime, const Value& self, const BoundArguments&) {
  return Value(Divides(runtime, self, Value(int64_t{2})));
}
Value IsOdd(Runtime& runtime, const Value& self, const BoundArguments&) {
  const Value remainder = Arithmetic(runtime, Operator::kModulo, self, Value(int64_t{2}));
  return Value(Equal(runtime, remainder, Value(int64_t{1})));
}
Value IsDivisibleBy(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  return Value(Divides(runtime, self, *arguments[0]));
}

template <Operator op>
Value Compares(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  return Value(Compare(runtime, op, self, *arguments[0]));
}

}  // namespace

const Callable* FindTest(std::string_view name) {
  static const std::vector<Callable> tests = {
      {"!=", {"other"}, 1, Compares<Operator::kNotEqual>},
      {"<", {"other"}, 1, Compares<Operator::kLess>},
      {"<=", {"other"}, 1, Compares<Operator::kLessEqual>},
      {"==", {"other"}, 1, Compares<Operator::kEqual>},
      {">", {"other"}, 1, Compares<Operator::kGreater>},
      {">=", {"other"}, 1, Compares<Operator::kGreaterEqual>},
      {"boolean", {}, 0, IsBoolean},
      {"defined", {}, 0, IsDefined},
      {"divisibleby", {"num"}, 1, IsDivisibleBy},
      {"eq", {"other"}, 1, Compares<Operator::kEqual>},
      {"equalto", {"other"}, 1, Compares<Operator::kEqual>},
      {"even", {}, 0, IsEven},
      {"false", {}, 0, IsFalse},
      {"float", {}, 0, IsFloat},
      {"ge", {"other"}, 1, Compares<Operator::kGreaterEqual>},
      {"gt", {"other"}, 1, Compares<Operator::kGreater>},
      {"in", {"seq"}, 1, Compares<Operator::kIn>},
      {"integer", {}, 0, IsInteger},
      {"iterable", {}, 0, IsSequence},
      {"le", {"other"}, 1, Compares<Operator::kLessEqual>},
      {"lt", {"other"}, 1, Compares<Operator::kLess>},
      {"mapping", {}, 0, IsMapping},
      {"ne", {"other"}, 1, Compares<Operator::kNotEqual>},
      {"none", {}, 0, IsNone},
      {"number", {}, 0, IsNumber},
      {"odd", {}, 0, IsOdd},
      {"sequence", {}, 0, IsSequence},
      {"string", {}, 0, IsString},
      {"true", {}, 0, IsTrue},
      {"undefined", {}, 0, IsUndefined},
  };
  const auto it = std::find_if(tests.begin(), tests.end(),
                               [name](const Callable& test) { return test.name == name; });
  return it == tests.end() ? nullptr : &*it;
}

}  // namespace tandem::jinja
