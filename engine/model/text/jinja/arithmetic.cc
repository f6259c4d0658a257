// The arithmetic and comparison half of operators.h.

#include <fmt/format.h>

#include <cmath>

#include "engine/model/text/jinja/format.h"
#include "engine/model/text/jinja/operators.h"

namespace tandem::jinja {
namespace {

std::string_view Spelling(Operator op) {
  switch (op) {
    case Operator::kAdd:
      return "+";
    case Operator::kSubtract:
      return "-";
    case Operator::kMultiply:
      return "*";
    case Operator::kDivide:
      return "/";
    case Operator::kFloorDivide:
      return "//";
    case Operator::kModulo:
      return "%";
    case Operator::kConcatenate:
      return "~";
    case Operator::kEqual:
      return "==";
    case Operator::kNotEqual:
      return "!=";
    case Operator::kLess:
      return "<";
    case Operator::kLessEqual:
      return "<=";
    case Operator::kGreater:
      return ">";
    case Operator::kGreaterEqual:
      return ">=";
    case Operator::kIn:
      return "in";
    case Operator::kNotIn:
      return "not in";
  }
  return "?";
}

Value Integers(Runtime& runtime, Operator op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflow = false;
  switch (op) {
    case Operator::kAdd:
      overflow = __builtin_add_overflow(a, b, &out);
      break;
    case Operator::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &out);
      break;
    case Operator::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &out);
      break;
    default:
      if (b == 0) runtime.Fail("division by zero");
      if (op == Operator::kDivide) return Value(static_cast<double>(a) / static_cast<double>(b));
      if (b == -1) {  // the one case where the quotient can overflow
        overflow = op == Operator::kFloorDivide && __builtin_sub_overflow(int64_t{0}, a, &out);
        if (op == Operator::kModulo) out = 0;
        break;
      }
      // Python rounds towards minus infinity; the remainder takes the divisor's sign.
      out = op == Operator::kFloorDivide ? a / b : a % b;
      if (a % b != 0 && (a < 0) != (b < 0)) out += op == Operator::kFloorDivide ? -1 : b;
  }
  if (overflow) runtime.FailUnsupported("an integer beyond 64 bits");
  return Value(out);
}

Value Reals(Runtime& runtime, Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value(a + b);
    case Operator::kSubtract:
      return Value(a - b);
    case Operator::kMultiply:
      return Value(a * b);
    default:
      break;
  }
  if (b == 0) runtime.Fail("division by zero");
  if (op == Operator::kDivide) return Value(a / b);
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  if (op == Operator::kModulo) return Value(remainder == 0 ? std::copysign(0.0, b) : remainder);
  const double quotient = (a - remainder) / b;
  return Value(quotient == 0 ? std::copysign(0.0, a / b) : std::round(quotient));
}

bool Repeatable(const Value& value) {
  return value.IsString() || (value.list() != nullptr && value.list()->kind <= ListKind::kTuple);
}

Value Repeat(Runtime& runtime, const Value& sequence, int64_t times) {
  const auto count = static_cast<uint64_t>(times < 0 ? 0 : times);
  if (const std::string* string = sequence.string()) {
    if (!string->empty() && count > Runtime::kMaxBytes / string->size()) {
      runtime.Make(Runtime::kMaxBytes + 1);
    }
    runtime.Make(string->size() * count);
    std::string out;
    out.reserve(string->size() * count);
    for (uint64_t i = 0; i < count && !string->empty(); ++i) out += *string;
    return runtime.NewString(std::move(out));
  }
  const ListData& list = *sequence.list();
  const uint64_t unit = list.items.size() * sizeof(Value);
  if (unit != 0 && count > Runtime::kMaxBytes / unit) runtime.Make(Runtime::kMaxBytes + 1);
  runtime.Make(unit * count);
  std::vector<Value> items;
  items.reserve(list.items.size() * count);
  for (uint64_t i = 0; i < count && unit != 0; ++i) {
    items.insert(items.end(), list.items.begin(), list.items.end());
  }
  return runtime.NewList(std::move(items), list.kind);
}

Value Join(Runtime& runtime, const Value& a, const Value& b) {
  if (a.IsString() && b.IsString()) {
    runtime.Make(a.string()->size() + b.string()->size());
    return runtime.NewString(*a.string() + *b.string());
  }
  if (a.list() != nullptr && b.list() != nullptr && a.list()->kind == b.list()->kind &&
      a.list()->kind <= ListKind::kTuple) {
    runtime.Make((a.list()->items.size() + b.list()->items.size()) * sizeof(Value));
    std::vector<Value> items = a.list()->items;
    items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
    return runtime.NewList(std::move(items), a.list()->kind);
  }
  runtime.Fail(fmt::format("cannot add {} and {}", TypeName(a), TypeName(b)));
}

}  // namespace

std::optional<int64_t> AsInteger(const Value& value) {
  if (const int64_t* integer = value.integer()) return *integer;
  if (const bool* boolean = value.boolean()) return *boolean ? 1 : 0;
  return std::nullopt;
}

std::optional<double> AsReal(const Value& value) {
  if (const double* real = value.real()) return *real;
  if (const auto integer = AsInteger(value)) return static_cast<double>(*integer);
  return std::nullopt;
}

Value Arithmetic(Runtime& runtime, Operator op, const Value& a, const Value& b) {
  if (op == Operator::kConcatenate) {
    std::string joined = ToText(runtime, a) + ToText(runtime, b);
    return runtime.NewString(std::move(joined));
  }
  if (op == Operator::kModulo && a.IsString()) runtime.FailUnsupported("formatting with '%'");
  runtime.RequireDefined(a);
  runtime.RequireDefined(b);
  const auto left_integer = AsInteger(a);
  const auto right_integer = AsInteger(b);
  if (left_integer && right_integer) return Integers(runtime, op, *left_integer, *right_integer);
  const auto left = AsReal(a);
  const auto right = AsReal(b);
  if (left && right) return Reals(runtime, op, *left, *right);
  if (op == Operator::kAdd) return Join(runtime, a, b);
  if (op == Operator::kMultiply) {
    if (right_integer && Repeatable(a)) {
      return Repeat(runtime, a, *right_integer);
    }
    if (left_integer && Repeatable(b)) {
      return Repeat(runtime, b, *left_integer);
    }
  }
  runtime.Fail(fmt::format("'{}' is not possible between {} and {}", Spelling(op), TypeName(a),
                           TypeName(b)));
}

Value Negate(Runtime& runtime, const Value& value) {
  runtime.RequireDefined(value);
  if (const auto integer = AsInteger(value)) {
    return Integers(runtime, Operator::kSubtract, 0, *integer);
  }
  if (const double* real = value.real()) return Value(-*real);
  runtime.Fail(fmt::format("'-' is not possible before {}", TypeName(value)));
}

Value Plus(Runtime& runtime, const Value& value) {
  runtime.RequireDefined(value);
  if (const auto integer = AsInteger(value)) return Value(*integer);
  if (value.real() != nullptr) return value;
  runtime.Fail(fmt::format("'+' is not possible before {}", TypeName(value)));
}

bool Equal(Runtime& runtime, const Value& a, const Value& b) {
  runtime.Step();
  if (a.IsString() && b.IsString()) {
    runtime.Scan(std::min(a.string()->size(), b.string()->size()));
    return *a.string() == *b.string();
  }
  const auto left_integer = AsInteger(a);
  const auto right_integer = AsInteger(b);
  if (left_integer && right_integer) return *left_integer == *right_integer;
  const auto left = AsReal(a);
  const auto right = AsReal(b);
  if (left && right) return *left == *right;
  if (a.list() != nullptr && b.list() != nullptr) {
    if (a.list()->kind != b.list()->kind) return false;
    if (a.list()->items.size() != b.list()->items.size()) return false;
    for (size_t i = 0; i < a.list()->items.size(); ++i) {
      if (!Equal(runtime, a.list()->items[i], b.list()->items[i])) return false;
    }
    return true;
  }
  if (a.dict() != nullptr && b.dict() != nullptr) {
    if (a.dict()->entries.size() != b.dict()->entries.size()) return false;
    for (const auto& [key, value] : a.dict()->entries) {
      const Value* other = FindKey(runtime, *b.dict(), key);
      if (other == nullptr || !Equal(runtime, value, *other)) return false;
    }
    return true;
  }
  const auto* function = std::get_if<Function>(&a.data());
  const auto* other_function = std::get_if<Function>(&b.data());
  if (function != nullptr && other_function != nullptr) {
    if (function->macro == nullptr && other_function->macro == nullptr) {
      runtime.FailUnsupported("comparing functions that are no macros");
    }
    return function->macro == other_function->macro;
  }
  if (a.name_space() != nullptr) return a.name_space() == b.name_space();
  if (a.loop() != nullptr) return a.loop() == b.loop();
  return (a.IsNone() && b.IsNone()) || (a.IsUndefined() && b.IsUndefined());
}

bool Less(Runtime& runtime, const Value& a, const Value& b) {
  runtime.RequireDefined(a);
  runtime.RequireDefined(b);
  if (a.IsString() && b.IsString()) {
    runtime.Scan(std::min(a.string()->size(), b.string()->size()));
    return *a.string() < *b.string();  // the order of UTF-8 is that of the code points
  }
  const auto left_integer = AsInteger(a);
  const auto right_integer = AsInteger(b);
  if (left_integer && right_integer) return *left_integer < *right_integer;
  const auto left = AsReal(a);
  const auto right = AsReal(b);
  if (left && right) return *left < *right;
  if (a.list() != nullptr && b.list() != nullptr) runtime.FailUnsupported("ordering lists");
  runtime.Fail(fmt::format("{} and {} have no order", TypeName(a), TypeName(b)));
}

bool Compare(Runtime& runtime, Operator op, const Value& a, const Value& b) {
  switch (op) {
    case Operator::kEqual:
      return Equal(runtime, a, b);
    case Operator::kNotEqual:
      return !Equal(runtime, a, b);
    case Operator::kLess:
      return Less(runtime, a, b);
    case Operator::kGreater:
      return Less(runtime, b, a);
    // Not the inverse of the opposite: that would be true for NaN.
    case Operator::kLessEqual:
      return Less(runtime, a, b) || Equal(runtime, a, b);
    case Operator::kGreaterEqual:
      return Less(runtime, b, a) || Equal(runtime, a, b);
    case Operator::kIn:
      return Contains(runtime, b, a);
    case Operator::kNotIn:
      return !Contains(runtime, b, a);
    default:
      runtime.Fail("not a comparison");
  }
}

}  // namespace tandem::jinja
