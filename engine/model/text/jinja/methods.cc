// The methods of strings and dicts: {{ value.name(arguments) }}.

#include <fmt/format.h>

#include <algorithm>

#include "engine/model/text/jinja/callable.h"
#include "engine/model/text/jinja/operators.h"
#include "engine/model/text/jinja/strings.h"

namespace tandem::jinja {
namespace {

const std::string& StringSelf(Runtime& runtime, const Value& self, std::string_view method) {
  runtime.RequireDefined(self);
  const std::string* string = self.string();
  if (string == nullptr) runtime.Fail(fmt::format("a {} has no '.{}()'", TypeName(self), method));
  return *string;
}

const DictData& DictSelf(Runtime& runtime, const Value& self, std::string_view method) {
  runtime.RequireDefined(self);
  const DictData* dict = self.dict();
  if (dict == nullptr) runtime.Fail(fmt::format("a {} has no '.{}()'", TypeName(self), method));
  return *dict;
}

// A string, or nothing for None and for an argument left out.
std::optional<std::string_view> OptionalString(Runtime& runtime,
                                               const std::optional<Value>& argument) {
  if (!argument || argument->IsNone()) return std::nullopt;
  if (!argument->IsString()) runtime.Fail("an argument must be a string");
  return *argument->string();
}

int64_t OptionalInteger(Runtime& runtime, const std::optional<Value>& argument) {
  if (!argument) return -1;
  const auto integer = AsInteger(*argument);
  if (!integer) runtime.Fail("an argument must be an integer");
  return *integer;
}

Value StripMethod(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const std::string& string = StringSelf(runtime, self, "strip");
  return Strip(runtime, string, OptionalString(runtime, arguments[0]), Side::kBoth);
}

Value LeftStripMethod(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const std::string& string = StringSelf(runtime, self, "lstrip");
  return Strip(runtime, string, OptionalString(runtime, arguments[0]), Side::kLeft);
}

Value RightStripMethod(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const std::string& string = StringSelf(runtime, self, "rstrip");
  return Strip(runtime, string, OptionalString(runtime, arguments[0]), Side::kRight);
}

Value SplitMethod(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const std::string& string = StringSelf(runtime, self, "split");
  return Split(runtime, string, OptionalString(runtime, arguments[0]),
               OptionalInteger(runtime, arguments[1]));
}

Value ReplaceMethod(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const std::string& string = StringSelf(runtime, self, "replace");
  if (!arguments[0]->IsString() || !arguments[1]->IsString()) {
    runtime.Fail("'.replace()' takes strings");
  }
  return Replace(runtime, string, *arguments[0]->string(), *arguments[1]->string(),
                 OptionalInteger(runtime, arguments[2]));
}

Value UpperMethod(Runtime& runtime, const Value& self, const BoundArguments&) {
  return Upper(runtime, StringSelf(runtime, self, "upper"));
}

Value LowerMethod(Runtime& runtime, const Value& self, const BoundArguments&) {
  return Lower(runtime, StringSelf(runtime, self, "lower"));
}

Value CapitalizeMethod(Runtime& runtime, const Value& self, const BoundArguments&) {
  return Capitalize(runtime, StringSelf(runtime, self, "capitalize"));
}

Value TitleMethod(Runtime& runtime, const Value& self, const BoundArguments&) {
  return TitleByLetters(runtime, StringSelf(runtime, self, "title"));
}

// One affix, or a tuple of which any will do.
Value HasAffix(Runtime& runtime, const std::string& string, const Value& affix, bool at_begin) {
  if (const ListData* list = affix.list(); list != nullptr && list->kind == ListKind::kTuple) {
    return Value(std::any_of(list->items.begin(), list->items.end(), [&](const Value& one) {
      if (!one.IsString()) runtime.Fail("'.startswith()' and '.endswith()' take strings");
      return Truth(HasAffix(runtime, string, one, at_begin));
    }));
  }
  if (!affix.IsString()) runtime.Fail("'.startswith()' and '.endswith()' take a string");
  runtime.Scan(affix.string()->size());
  return Value(at_begin ? string.starts_with(*affix.string()) : string.ends_with(*affix.string()));
}

Value StartsWith(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  return HasAffix(runtime, StringSelf(runtime, self, "startswith"), *arguments[0], true);
}

Value EndsWith(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  return HasAffix(runtime, StringSelf(runtime, self, "endswith"), *arguments[0], false);
}

Value Get(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const DictData& dict = DictSelf(runtime, self, "get");
  if (const Value* found = FindKey(runtime, dict, *arguments[0])) return *found;
  return arguments[1] ? *arguments[1] : Value(None());
}

Value Items(Runtime& runtime, const Value& self, const BoundArguments&) {
  std::vector<Value> items;
  for (const auto& [key, value] : DictSelf(runtime, self, "items").entries) {
    items.push_back(runtime.NewList({key, value}, ListKind::kTuple));
  }
  return runtime.NewList(std::move(items), ListKind::kView);
}

Value Keys(Runtime& runtime, const Value& self, const BoundArguments&) {
  std::vector<Value> keys;
  for (const auto& entry : DictSelf(runtime, self, "keys").entries) keys.push_back(entry.first);
  return runtime.NewList(std::move(keys), ListKind::kView);
}

Value Values(Runtime& runtime, const Value& self, const BoundArguments&) {
  std::vector<Value> values;
  for (const auto& entry : DictSelf(runtime, self, "values").entries) {
    values.push_back(entry.second);
  }
  return runtime.NewList(std::move(values), ListKind::kView);
}

}  // namespace

const Callable* FindMethod(std::string_view name) {
  static const std::vector<Callable> methods = {
      {"capitalize", {}, 0, CapitalizeMethod},
      {"endswith", {"suffix"}, 1, EndsWith},
      {"get", {"key", "default"}, 1, Get},
      {"items", {}, 0, Items},
      {"keys", {}, 0, Keys},
      {"lower", {}, 0, LowerMethod},
      {"lstrip", {"chars"}, 0, LeftStripMethod},
      {"replace", {"old", "new", "count"}, 2, ReplaceMethod},
      {"rstrip", {"chars"}, 0, RightStripMethod},
      {"split", {"sep", "maxsplit"}, 0, SplitMethod},
      {"startswith", {"prefix"}, 1, StartsWith},
      {"strip", {"chars"}, 0, StripMethod},
      {"title", {}, 0, TitleMethod},
      {"upper", {}, 0, UpperMethod},
      {"values", {}, 0, Values},
  };
  const auto it = std::find_if(methods.begin(), methods.end(),
                               [name](const Callable& method) { return method.name == name; });
  return it == methods.end() ? nullptr : &*it;
}

}  // namespace tandem::jinja
