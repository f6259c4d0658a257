// The filters: {{ value|name(arguments) }}.

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/model/text/jinja/callable.h"
#include "engine/model/text/jinja/format.h"
#include "engine/model/text/jinja/operators.h"
#include "engine/model/text/jinja/ordering_filters.h"
#include "engine/model/text/jinja/strings.h"
#include "engine/model/text/utf8.h"

namespace tandem::jinja {
namespace {

// Most text filters take str(value) first.
Value TextOf(Runtime& runtime, const Value& value) {
  return value.IsString() ? value : runtime.NewString(ToText(runtime, value));
}

std::string TextArgument(Runtime& runtime, const std::optional<Value>& argument) {
  return argument ? ToText(runtime, *argument) : "";
}

int64_t IntegerArgument(Runtime& runtime, const std::optional<Value>& argument, int64_t otherwise) {
  if (!argument || argument->IsNone()) return otherwise;
  const auto integer = AsInteger(*argument);
  if (!integer) runtime.Fail("an argument must be an integer");
  return *integer;
}

Value Trim(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const Value text = TextOf(runtime, self);
  if (!arguments[0] || arguments[0]->IsNone()) {
    return Strip(runtime, *text.string(), std::nullopt, Side::kBoth);
  }
  const std::string* characters = arguments[0]->string();
  if (characters == nullptr) runtime.Fail("'trim' takes a string");
  return Strip(runtime, *text.string(), *characters, Side::kBoth);
}

Value UpperFilter(Runtime& runtime, const Value& self, const BoundArguments&) {
  return Upper(runtime, *TextOf(runtime, self).string());
}

Value LowerFilter(Runtime& runtime, const Value& self, const BoundArguments&) {
  return Lower(runtime, *TextOf(runtime, self).string());
}

Value CapitalizeFilter(Runtime& runtime, const Value& self, const BoundArguments&) {
  return Capitalize(runtime, *TextOf(runtime, self).string());
}

Value TitleFilter(Runtime& runtime, const Value& self, const BoundArguments&) {
  return TitleByWords(runtime, *TextOf(runtime, self).string());
}

Value LengthFilter(Runtime& runtime, const Value& self, const BoundArguments&) {
  return Value(Length(runtime, self));
}

Value Default(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const bool falsy_too = arguments[1] && Truth(*arguments[1]);
  if (self.IsUndefined() || (falsy_too && !Truth(self))) {
    return arguments[0] ? *arguments[0] : runtime.NewString("");
  }
  return self;
}

Value First(Runtime& runtime, const Value& self, const BoundArguments&) {
  const auto elements = Elements(runtime, self);
  return elements->items.empty() ? Runtime::NewUndefined("'first' of nothing")
                                 : elements->items.front();
}

Value Last(Runtime& runtime, const Value& self, const BoundArguments&) {
  const auto elements = Elements(runtime, self);
  return elements->items.empty() ? Runtime::NewUndefined("'last' of nothing")
                                 : elements->items.back();
}

Value JoinFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const std::string separator = TextArgument(runtime, arguments[0]);
  std::string out;
  bool first = true;
  const auto elements = Elements(runtime, self);
  for (const Value& item : elements->items) {
    Value element = item;
    if (arguments[1] && !arguments[1]->IsNone()) element = GetItem(runtime, item, *arguments[1]);
    const std::string piece = ToText(runtime, element);
    runtime.Make(piece.size() + separator.size());
    if (!first) out += separator;
    out += piece;
    first = false;
  }
  return runtime.NewString(std::move(out));
}

Value ReplaceFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const Value text = TextOf(runtime, self);
  return Replace(runtime, *text.string(), TextArgument(runtime, arguments[0]),
                 TextArgument(runtime, arguments[1]), IntegerArgument(runtime, arguments[2], -1));
}

// Hugging Face's tojson and Jinja's own take different things for their first argument, so it has
// to be given by name; and only what both would do the same is done.
Value ToJsonFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  if (arguments[0]) runtime.FailUnsupported("'tojson' with an argument that has no name");
  if (arguments[2] && Truth(*arguments[2])) runtime.FailUnsupported("tojson(ensure_ascii=true)");
  std::optional<int64_t> indent;
  if (arguments[1] && !arguments[1]->IsNone()) indent = IntegerArgument(runtime, arguments[1], 0);
  return runtime.NewString(ToJson(runtime, self, indent));
}

Value StringFilter(Runtime& runtime, const Value& self, const BoundArguments&) {
  return TextOf(runtime, self);
}

// Marks text that must not be escaped. Nothing is escaped here, but joining it with other text
// would escape that: only "{{ ...|safe }}" itself, which the parser reads, is plain.
Value SafeFilter(Runtime& runtime, const Value&, const BoundArguments&) {
  runtime.FailUnsupported("'safe' inside an expression");
}

// Python's float("..."): surrounding whitespace and a sign are allowed.
std::optional<double> ParseReal(Runtime& runtime, std::string_view text) {
  text = text::LeftStripped(text::RightStripped(text));
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec == std::errc::result_out_of_range) {
    runtime.FailUnsupported("a number beyond a double");
  }
  const bool whole = result.ec == std::errc() && result.ptr == text.data() + text.size();
  return whole && !text.empty() ? std::optional(value) : std::nullopt;
}

std::optional<int64_t> ParseInteger(std::string_view text) {
  text = text::LeftStripped(text::RightStripped(text));
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) return std::nullopt;
  }
  int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = result.ec == std::errc() && result.ptr == text.data() + text.size();
  return whole && !text.empty() ? std::optional(value) : std::nullopt;
}

// Towards zero; nothing for what no 64-bit integer holds.
std::optional<int64_t> Truncated(double value) {
  constexpr double kLimit = 9223372036854775808.0;  // 2^63
  if (!(value > -kLimit && value < kLimit)) return std::nullopt;
  return static_cast<int64_t>(value);
}

Value IntFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  if (IntegerArgument(runtime, arguments[1], 10) != 10) {
    runtime.FailUnsupported("'int' with a base");
  }
  runtime.RequireDefined(self);
  if (const auto integer = AsInteger(self)) return Value(*integer);
  std::optional<double> real;
  if (self.real() != nullptr) real = *self.real();
  if (const std::string* text = self.string()) {
    if (const auto integer = ParseInteger(*text)) return Value(*integer);
    real = ParseReal(runtime, *text);
  }
  if (real) {
    if (const auto integer = Truncated(*real)) return Value(*integer);
    runtime.FailUnsupported("an integer beyond 64 bits");
  }
  return arguments[0] ? *arguments[0] : Value(int64_t{0});
}

Value FloatFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  runtime.RequireDefined(self);
  if (const auto real = AsReal(self)) return Value(*real);
  if (const std::string* text = self.string()) {
    if (const auto real = ParseReal(runtime, *text)) return Value(*real);
  }
  return arguments[0] ? *arguments[0] : Value(0.0);
}

Value AbsFilter(Runtime& runtime, const Value& self, const BoundArguments&) {
  if (const auto integer = AsInteger(self)) {
    return *integer < 0 ? Negate(runtime, self) : Value(*integer);
  }
  if (const double* real = self.real()) return Value(std::fabs(*real));
  runtime.RequireDefined(self);
  runtime.Fail(fmt::format("'abs' of a {}", TypeName(self)));
}

Value ListFilter(Runtime& runtime, const Value& self, const BoundArguments&) {
  return runtime.NewList(Elements(runtime, self)->items);
}

Value ReverseFilter(Runtime& runtime, const Value& self, const BoundArguments&) {
  if (self.IsString()) {
    return Slice(runtime, self, Value(None()), Value(None()), Value(int64_t{-1}));
  }
  const auto elements = Elements(runtime, self);
  return runtime.NewList(std::vector<Value>(elements->items.rbegin(), elements->items.rend()));
}

Value ItemsFilter(Runtime& runtime, const Value& self, const BoundArguments&) {
  if (self.IsUndefined()) return runtime.NewList({});
  const DictData* dict = self.dict();
  if (dict == nullptr) runtime.Fail(fmt::format("'items' of a {}", TypeName(self)));
  std::vector<Value> items;
  for (const auto& [key, value] : dict->entries) {
    items.push_back(runtime.NewList({key, value}, ListKind::kTuple));
  }
  return runtime.NewList(std::move(items));
}

// llama.cpp has this filter, Python's environment does not and fails where it is run. So does this:
// templates name it for the arguments of tool calls, which messages here do not have.
Value FromJsonFilter(Runtime& runtime, const Value&, const BoundArguments&) {
  runtime.FailUnsupported("the filter 'from_json'");
}

// The test that an argument names; null, for truth itself, when there is none.
const Callable* TestArgument(Runtime& runtime, const std::optional<Value>& argument) {
  if (!argument) return nullptr;
  const std::string name = TextArgument(runtime, argument);
  const Callable* test = FindTest(name);
  if (test == nullptr) runtime.FailUnsupported(fmt::format("the test '{}'", name));
  return test;
}

bool Passes(Runtime& runtime, const Callable* test, const Value& value,
            const std::optional<Value>& argument) {
  runtime.Step();
  if (test == nullptr) return Truth(value);
  Arguments arguments;
  if (argument) arguments.positional.push_back(*argument);
  return Truth(Call(runtime, *test, value, std::move(arguments)));
}

// These filters give nothing for whatever is false, be it a sequence or not.
std::shared_ptr<const ListData> ElementsIfAny(Runtime& runtime, const Value& value) {
  return Elements(runtime, Truth(value) ? value : Value());
}

// The elements that pass the test, or those that do not.
template <bool wanted>
Value Select(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const Callable* test = TestArgument(runtime, arguments[0]);
  std::vector<Value> selected;
  const auto elements = ElementsIfAny(runtime, self);
  for (const Value& item : elements->items) {
    if (Passes(runtime, test, item, arguments[1]) == wanted) selected.push_back(item);
  }
  return runtime.NewList(std::move(selected));
}

// The elements whose attribute passes the test, or those whose does not.
template <bool wanted>
Value SelectByAttribute(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const Callable* test = TestArgument(runtime, arguments[1]);
  std::vector<Value> selected;
  const auto elements = ElementsIfAny(runtime, self);
  for (const Value& item : elements->items) {
    const Value attribute = GetItem(runtime, item, *arguments[0]);
    if (Passes(runtime, test, attribute, arguments[2]) == wanted) selected.push_back(item);
  }
  return runtime.NewList(std::move(selected));
}

// map(attribute="x") alone.
Value MapFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  if (arguments[0] || !arguments[1]) runtime.FailUnsupported("'map' without attribute=");
  std::vector<Value> mapped;
  const auto elements = ElementsIfAny(runtime, self);
  for (const Value& item : elements->items) {
    Value attribute = GetItem(runtime, item, *arguments[1]);
    if (attribute.IsUndefined() && arguments[2]) attribute = *arguments[2];
    mapped.push_back(std::move(attribute));
  }
  return runtime.NewList(std::move(mapped));
}

}  // namespace

const Callable* FindFilter(std::string_view name) {
  static const std::vector<Callable> filters = {
      {"abs", {}, 0, AbsFilter},
      {"capitalize", {}, 0, CapitalizeFilter},
      {"count", {}, 0, LengthFilter},
      {"d", {"default_value", "boolean"}, 0, Default},
      {"default", {"default_value", "boolean"}, 0, Default},
      {"dictsort", {"case_sensitive", "by", "reverse"}, 0, DictSort},
      {"first", {}, 0, First},
      {"float", {"default"}, 0, FloatFilter},
      {"from_json", {}, 0, FromJsonFilter},
      {"int", {"default", "base"}, 0, IntFilter},
      {"items", {}, 0, ItemsFilter},
      {"join", {"d", "attribute"}, 0, JoinFilter},
      {"last", {}, 0, Last},
      {"length", {}, 0, LengthFilter},
      {"list", {}, 0, ListFilter},
      {"lower", {}, 0, LowerFilter},
      {"map", {"filter", "attribute", "default"}, 0, MapFilter},
      {"max", {"case_sensitive", "attribute"}, 0, MaxFilter},
      {"min", {"case_sensitive", "attribute"}, 0, MinFilter},
      {"reject", {"test", "argument"}, 0, Select<false>},
      {"rejectattr", {"attribute", "test", "argument"}, 1, SelectByAttribute<false>},
      {"replace", {"old", "new", "count"}, 2, ReplaceFilter},
      {"reverse", {}, 0, ReverseFilter},
      {"select", {"test", "argument"}, 0, Select<true>},
      {"selectattr", {"attribute", "test", "argument"}, 1, SelectByAttribute<true>},
      {"safe", {}, 0, SafeFilter},
      {"sort", {"reverse", "case_sensitive", "attribute"}, 0, SortFilter},
      {"string", {}, 0, StringFilter},
      {"title", {}, 0, TitleFilter},
      {"tojson", {"", "indent", "ensure_ascii"}, 0, ToJsonFilter},
      {"trim", {"chars"}, 0, Trim},
      {"unique", {"case_sensitive", "attribute"}, 0, UniqueFilter},
      {"upper", {}, 0, UpperFilter},
  };
  const auto it = std::find_if(filters.begin(), filters.end(),
                               [name](const Callable& filter) { return filter.name == name; });
  return it == filters.end() ? nullptr : &*it;
}

}  // namespace tandem::jinja
