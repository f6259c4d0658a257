// The half of operators.h that takes values apart; the other is arithmetic.cc.

#include "engine/model/text/jinja/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "engine/model/text/utf8.h"

namespace tandem::jinja {
namespace {

size_t CountCodePoints(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// Attributes that Python's own types have. A template that names one without calling it gets a
// function there, which nothing here stands for.
constexpr std::array<std::string_view, 11> kDictMethods = {
    "clear", "copy",    "fromkeys",   "get",    "items", "keys",
    "pop",   "popitem", "setdefault", "update", "values"};
constexpr std::array<std::string_view, 11> kListMethods = {"append", "clear",   "copy",   "count",
                                                           "extend", "index",   "insert", "pop",
                                                           "remove", "reverse", "sort"};
constexpr std::array<std::string_view, 47> kStringMethods = {
    "capitalize",   "casefold",    "center",    "count",      "encode",       "endswith",
    "expandtabs",   "find",        "format",    "format_map", "index",        "isalnum",
    "isalpha",      "isascii",     "isdecimal", "isdigit",    "isidentifier", "islower",
    "isnumeric",    "isprintable", "isspace",   "istitle",    "isupper",      "join",
    "ljust",        "lower",       "lstrip",    "maketrans",  "partition",    "removeprefix",
    "removesuffix", "replace",     "rfind",     "rindex",     "rjust",        "rpartition",
    "rsplit",       "rstrip",      "split",     "splitlines", "startswith",   "strip",
    "swapcase",     "title",       "translate", "upper",      "zfill"};

template <size_t size>
bool Has(const std::array<std::string_view, size>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool IsMethodOf(const Value& object, std::string_view name) {
  if (object.IsString()) return Has(kStringMethods, name);
  if (object.list() != nullptr) return Has(kListMethods, name);
  if (object.dict() != nullptr) return Has(kDictMethods, name);
  return false;
}

// An attribute of Python's object itself, which for these values means a method.
void RefuseMethod(Runtime& runtime, const Value& object, std::string_view name) {
  if (IsMethodOf(object, name) || name.starts_with("__")) {
    runtime.FailUnsupported(fmt::format("'.{}' of a {} without a call", name, TypeName(object)));
  }
}

Value LoopAttribute(const LoopData& loop, std::string_view name) {
  const std::vector<Value>& items = loop.items->items;
  const auto index = static_cast<int64_t>(loop.index);
  const auto length = static_cast<int64_t>(items.size());
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "revindex") return Value(length - index);
  if (name == "revindex0") return Value(length - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == length);
  if (name == "length") return Value(length);
  // Depth counts recursive loops, of which there are none.
  if (name == "depth") return Value(int64_t{1});
  if (name == "depth0") return Value(int64_t{0});
  if (name == "previtem" && index > 0) return items[loop.index - 1];
  if (name == "nextitem" && index + 1 < length) return items[loop.index + 1];
  return Runtime::NewUndefined(fmt::format("the loop has no '{}' here", name));
}

// The element of a list, or the character of a string, at a Python index.
Value ElementAt(Runtime& runtime, const Value& object, int64_t index) {
  const int64_t length = Length(runtime, object);
  if (index < 0) index += length;
  if (index < 0 || index >= length) {
    return Runtime::NewUndefined(fmt::format("a {} has no element {}", TypeName(object), index));
  }
  if (const ListData* list = object.list()) return list->items[static_cast<size_t>(index)];
  const std::string& string = *object.string();
  runtime.Scan(string.size());
  size_t at = 0;
  while (index-- > 0) at += text::NextUtf8(string, at).bytes;
  return runtime.NewString(string.substr(at, text::NextUtf8(string, at).bytes));
}

bool IsHashable(const Value& value) {
  const bool list = value.list() != nullptr && value.list()->kind == ListKind::kList;
  return !list && value.dict() == nullptr;
}

bool IsSubscriptable(const Value& value) {
  return value.IsString() || (value.list() != nullptr && value.list()->kind != ListKind::kView);
}

// Python's slice.indices.
struct Range {
  int64_t start = 0;
  int64_t stop = 0;
  int64_t step = 1;
};

Range ResolveSlice(Runtime& runtime, int64_t length, const Value& start, const Value& stop,
                   const Value& step) {
  for (const Value* part : {&start, &stop, &step}) {
    if (!part->IsNone() && !AsInteger(*part)) runtime.Fail("a slice's parts must be integers");
  }
  Range range;
  range.step = AsInteger(step).value_or(1);
  if (range.step == 0) runtime.Fail("a slice's step is zero");
  // -INT64_MAX rather than INT64_MIN, so that it can be negated.
  range.step = std::max<int64_t>(range.step, -INT64_MAX);
  const bool forwards = range.step > 0;
  const int64_t lowest = forwards ? 0 : -1;
  const int64_t highest = forwards ? length : length - 1;
  const auto clamp = [&](int64_t at) {
    return std::clamp(at < 0 ? at + length : at, lowest, highest);
  };
  const auto from = AsInteger(start);
  const auto to = AsInteger(stop);
  range.start = from ? clamp(*from) : (forwards ? lowest : highest);
  range.stop = to ? clamp(*to) : (forwards ? highest : lowest);
  return range;
}

size_t CountOf(const Range& range) {
  const int64_t distance = range.step > 0 ? range.stop - range.start : range.start - range.stop;
  const int64_t stride = range.step > 0 ? range.step : -range.step;
  return distance <= 0 ? 0 : static_cast<size_t>((distance - 1) / stride + 1);
}

Value SliceString(Runtime& runtime, const std::string& string, const Range& range) {
  runtime.Scan(string.size());
  // Without characters beyond ASCII, positions are bytes.
  std::vector<size_t> begins;
  const bool ascii = CountCodePoints(string) == string.size();
  if (!ascii) {
    runtime.Make(string.size() * sizeof(size_t));
    for (size_t at = 0; at < string.size(); at += text::NextUtf8(string, at).bytes) {
      begins.push_back(at);
    }
    begins.push_back(string.size());
  }
  std::string out;
  int64_t at = range.start;
  for (size_t left = CountOf(range); left > 0; --left) {
    const auto position = static_cast<size_t>(at);
    if (ascii) {
      out += string[position];
    } else {
      out.append(string, begins[position], begins[position + 1] - begins[position]);
    }
    if (left > 1) at += range.step;  // the last step may lead beyond int64
  }
  return runtime.NewString(std::move(out));
}

}  // namespace

bool Truth(const Value& value) {
  if (const bool* boolean = value.boolean()) return *boolean;
  if (const int64_t* integer = value.integer()) return *integer != 0;
  if (const double* real = value.real()) return *real != 0;
  if (const std::string* string = value.string()) return !string->empty();
  if (const ListData* list = value.list()) return !list->items.empty();
  if (const DictData* dict = value.dict()) return !dict->entries.empty();
  return !value.IsUndefined() && !value.IsNone();
}

bool Contains(Runtime& runtime, const Value& container, const Value& item) {
  if (const std::string* string = container.string()) {
    if (!item.IsString()) {
      runtime.RequireDefined(item);
      runtime.Fail(fmt::format("'in' a string wants a string, not {}", TypeName(item)));
    }
    runtime.Scan(string->size());
    return string->find(*item.string()) != std::string::npos;
  }
  if (const DictData* dict = container.dict()) return FindKey(runtime, *dict, item) != nullptr;
  if (const ListData* list = container.list()) {
    return std::any_of(list->items.begin(), list->items.end(),
                       [&](const Value& element) { return Equal(runtime, element, item); });
  }
  if (container.IsUndefined()) return false;
  runtime.Fail(fmt::format("'in' is not possible with {}", TypeName(container)));
}

const Value* FindKey(Runtime& runtime, const DictData& dict, const Value& key) {
  if (!IsHashable(key)) {
    runtime.Fail(fmt::format("a {} cannot be a key", TypeName(key)));
  }
  for (const auto& [candidate, value] : dict.entries) {
    if (Equal(runtime, candidate, key)) return &value;
  }
  return nullptr;
}

Value GetAttribute(Runtime& runtime, const Value& object, std::string_view name) {
  runtime.RequireDefined(object);
  if (const LoopData* loop = object.loop()) return LoopAttribute(*loop, name);
  if (const NamespaceData* space = object.name_space()) {
    for (const auto& [key, value] : space->entries) {
      if (key == name) return value;
    }
    return Runtime::NewUndefined(fmt::format("the namespace has no '{}'", name));
  }
  if (std::holds_alternative<Function>(object.data())) {
    runtime.FailUnsupported(fmt::format("'.{}' of a function", name));
  }
  RefuseMethod(runtime, object, name);
  if (const DictData* dict = object.dict()) {
    for (const auto& [key, value] : dict->entries) {
      runtime.Step();
      if (key.IsString() && *key.string() == name) return value;
    }
  }
  return Runtime::NewUndefined(fmt::format("{} has no '{}'", TypeName(object), name));
}

void SetAttribute(Runtime& runtime, NamespaceData& space, const std::string& name, Value value) {
  if (value.name_space() != nullptr) {
    runtime.FailUnsupported("a namespace as a part of another value");
  }
  for (auto& [key, held] : space.entries) {
    runtime.Step();
    if (key == name) {
      held = std::move(value);
      return;
    }
  }
  runtime.Make(name.size() + sizeof(space.entries[0]));
  space.entries.emplace_back(name, std::move(value));
}

Value GetItem(Runtime& runtime, const Value& object, const Value& key) {
  runtime.RequireDefined(object);
  if (const DictData* dict = object.dict()) {
    if (IsHashable(key)) {
      if (const Value* found = FindKey(runtime, *dict, key)) return *found;
    }
  } else if (IsSubscriptable(object)) {
    if (const auto index = AsInteger(key)) return ElementAt(runtime, object, *index);
  }
  if (const std::string* name = key.string()) return GetAttribute(runtime, object, *name);
  return Runtime::NewUndefined(fmt::format("{} has no such element", TypeName(object)));
}

Value Slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop,
            const Value& step) {
  runtime.RequireDefined(object);
  if (!IsSubscriptable(object)) {
    runtime.Fail(fmt::format("a {} cannot be sliced", TypeName(object)));
  }
  const Range range = ResolveSlice(runtime, Length(runtime, object), start, stop, step);
  if (const std::string* string = object.string()) return SliceString(runtime, *string, range);
  std::vector<Value> items;
  const size_t count = CountOf(range);
  runtime.Make(count * sizeof(Value));
  items.reserve(count);
  int64_t at = range.start;
  for (size_t left = count; left > 0; --left) {
    items.push_back(object.list()->items[static_cast<size_t>(at)]);
    if (left > 1) at += range.step;
  }
  return runtime.NewList(std::move(items), object.list()->kind);
}

int64_t Length(Runtime& runtime, const Value& value) {
  if (const std::string* string = value.string()) {
    runtime.Scan(string->size());
    return static_cast<int64_t>(CountCodePoints(*string));
  }
  if (const ListData* list = value.list()) return static_cast<int64_t>(list->items.size());
  if (const DictData* dict = value.dict()) return static_cast<int64_t>(dict->entries.size());
  if (value.IsUndefined()) return 0;
  runtime.Fail(fmt::format("a {} has no length", TypeName(value)));
}

std::shared_ptr<const ListData> Elements(Runtime& runtime, const Value& value) {
  if (const auto* list = std::get_if<std::shared_ptr<const ListData>>(&value.data())) return *list;
  std::vector<Value> items;
  if (const std::string* string = value.string()) {
    for (size_t at = 0; at < string->size();) {
      const size_t bytes = text::NextUtf8(*string, at).bytes;
      items.push_back(runtime.NewString(string->substr(at, bytes)));
      at += bytes;
    }
  } else if (const DictData* dict = value.dict()) {
    runtime.Make(dict->entries.size() * sizeof(Value));
    for (const auto& [key, ignored] : dict->entries) items.push_back(key);
  } else if (!value.IsUndefined()) {
    runtime.Fail(fmt::format("a {} cannot be gone through", TypeName(value)));
  }
  return std::get<std::shared_ptr<const ListData>>(runtime.NewList(std::move(items)).data());
}

}  // namespace tandem::jinja
