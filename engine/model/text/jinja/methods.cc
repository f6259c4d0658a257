// The methods of strings and dicts: {{ value.name(arguments) }}.

#include <fmt/format.h>

#include <algorithm>

#include "engine/model/text/jinja/callable.h"
#include "engine/model/text/jinja/format.h"
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

// One field of a format: "{}", which takes the next argument, or "{3}".
class FormatFields {
 public:
  FormatFields(Runtime& runtime, const BoundArguments& arguments)
      : runtime_(runtime), arguments_(arguments) {}

  std::string Text(std::string_view field) {
    const bool numbered = !field.empty();
    if (field.find_first_not_of("0123456789") != std::string_view::npos || field.size() > 4) {
      runtime_.FailUnsupported(fmt::format("'{{{}}}' in a format", field.substr(0, 40)));
    }
    if (numbered ? next_ > 0 : numbered_) runtime_.Fail("a format numbers all fields or none");
    numbered_ = numbered_ || numbered;
    const size_t index = numbered ? std::stoul(std::string(field)) : next_++;
    if (index >= arguments_.size() || !arguments_[index]) {
      runtime_.Fail(fmt::format("a format lacks argument {}", index));
    }
    return ToText(runtime_, *arguments_[index]);
  }

 private:
  Runtime& runtime_;
  const BoundArguments& arguments_;
  size_t next_ = 0;
  bool numbered_ = false;
};

// Python's str.format with plain fields: no names, attributes, conversions or widths.
Value FormatMethod(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const std::string_view format = StringSelf(runtime, self, "format");
  FormatFields fields(runtime, arguments);
  std::string out;
  for (size_t at = 0; at < format.size();) {
    runtime.Step();
    const size_t brace = std::min(format.find_first_of("{}", at), format.size());
    runtime.Make(brace - at);
    out += format.substr(at, brace - at);
    if (brace == format.size()) break;
    if (format.substr(brace, 2) == "{{" || format.substr(brace, 2) == "}}") {
      out += format[brace];
      at = brace + 2;
      continue;
    }
    const size_t end = format[brace] == '{' ? format.find('}', brace) : std::string_view::npos;
    if (end == std::string_view::npos) runtime.Fail("a brace without its other in a format");
    const std::string text = fields.Text(format.substr(brace + 1, end - brace - 1));
    runtime.Make(text.size());
    out += text;
    at = end + 1;
  }
  return runtime.NewString(std::move(out));
}

// Hugging Face's sandbox lets no template change a list or a dict.
Value ChangingMethod(Runtime& runtime, const Value& self, const BoundArguments&) {
  runtime.Fail(fmt::format("a template cannot change a {}", TypeName(self)));
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
      {"append", {"object"}, 1, ChangingMethod},
      {"capitalize", {}, 0, CapitalizeMethod},
      {"endswith", {"suffix"}, 1, EndsWith},
      {"format", std::vector<std::string_view>(32, ""), 0, FormatMethod},
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
