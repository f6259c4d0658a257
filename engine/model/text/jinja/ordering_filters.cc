// Sorting, extremes and equality of elements. See ordering_filters.h.
#include "engine/model/text/jinja/ordering_filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/text/jinja/format.h"
#include "engine/model/text/jinja/operators.h"
#include "engine/model/text/jinja/strings.h"

namespace tandem::jinja {
namespace {

// What sorting compares: letters' case counts only where asked for.
Value SortKey(Runtime& runtime, const Value& value, bool case_sensitive) {
  const std::string* text = value.string();
  return text == nullptr || case_sensitive ? value : Lower(runtime, *text);
}

// Keys and elements to be sorted. A list's sort is stable, and stays within its bounds when the
// keys (numbers that are none, say) have no consistent order.
using Keyed = std::list<std::pair<Value, Value>>;

// The elements in the order of their keys, those of equal keys as they stood. With equal_first, as
// Python compares lists, keys that are equal need not have an order.
Value Sorted(Runtime& runtime, Keyed keyed, bool reverse, bool equal_first) {
  keyed.sort([&](const auto& left, const auto& right) {
    const Value& a = reverse ? right.first : left.first;
    const Value& b = reverse ? left.first : right.first;
    return !(equal_first && Equal(runtime, a, b)) && Less(runtime, a, b);
  });
  std::vector<Value> sorted;
  for (auto& entry : keyed) sorted.push_back(std::move(entry.second));
  return runtime.NewList(std::move(sorted));
}

bool Flag(const std::optional<Value>& argument) { return argument && Truth(*argument); }

// What a filter compares elements by: an attribute that the argument names, or the element itself.
Value KeyOf(Runtime& runtime, const Value& item, const std::optional<Value>& attribute,
            bool case_sensitive) {
  const bool whole = !attribute || attribute->IsNone();
  return SortKey(runtime, whole ? item : GetItem(runtime, item, *attribute), case_sensitive);
}

void RefusePath(Runtime& runtime, std::string_view filter, const std::optional<Value>& attribute) {
  const std::string* name = attribute ? attribute->string() : nullptr;
  if (name != nullptr && name->find('.') != std::string::npos) {
    runtime.FailUnsupported(fmt::format("'{}' by an attribute of an attribute", filter));
  }
}

// The first of the elements that no other comes before, or behind.
template <bool least>
Value Extreme(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  RefusePath(runtime, least ? "min" : "max", arguments[1]);
  const auto elements = Elements(runtime, self);
  if (elements->items.empty()) return Runtime::NewUndefined("'min' or 'max' of nothing");
  const Value* best = nullptr;
  Value best_key;
  for (const Value& item : elements->items) {
    Value key = KeyOf(runtime, item, arguments[1], Flag(arguments[0]));
    runtime.Step();
    const bool better =
        best == nullptr || (least ? Less(runtime, key, best_key) : Less(runtime, best_key, key));
    if (!better) continue;
    best = &item;
    best_key = std::move(key);
  }
  return *best;
}

// Fails for what Python cannot put into a set: whatever could change.
void RequireHashable(Runtime& runtime, const Value& value) {
  runtime.Step();
  const ListData* list = value.list();
  if (value.dict() != nullptr || (list != nullptr && list->kind == ListKind::kList)) {
    runtime.Fail(fmt::format("'unique' of a {}", TypeName(value)));
  }
  if (list == nullptr) return;
  if (list->kind != ListKind::kTuple) runtime.FailUnsupported("'unique' of views or ranges");
  for (const Value& item : list->items) RequireHashable(runtime, item);
}

}  // namespace

Value SortFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  const std::optional<Value>& attribute = arguments[2];
  const bool by_attribute = attribute && !attribute->IsNone();
  if (by_attribute && attribute->IsString() &&
      attribute->string()->find_first_of(".,") != std::string::npos) {
    runtime.FailUnsupported("'sort' by several attributes, or by one of an attribute");
  }
  Keyed keyed;
  const auto elements = Elements(runtime, self);
  for (const Value& item : elements->items) {
    runtime.Make(sizeof(Keyed::value_type));
    const Value key = by_attribute ? GetItem(runtime, item, *attribute) : item;
    keyed.emplace_back(SortKey(runtime, key, Flag(arguments[1])), item);
  }
  return Sorted(runtime, std::move(keyed), Flag(arguments[0]), true);
}

Value DictSort(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  runtime.RequireDefined(self);
  const DictData* dict = self.dict();
  if (dict == nullptr) runtime.Fail(fmt::format("'dictsort' of a {}", TypeName(self)));
  const std::string by = arguments[1] ? ToText(runtime, *arguments[1]) : "key";
  if (by != "key" && by != "value") runtime.Fail("'dictsort' goes by 'key' or 'value'");
  Keyed keyed;
  for (const auto& [key, value] : dict->entries) {
    runtime.Make(sizeof(Keyed::value_type));
    keyed.emplace_back(SortKey(runtime, by == "key" ? key : value, Flag(arguments[0])),
                       runtime.NewList({key, value}, ListKind::kTuple));
  }
  return Sorted(runtime, std::move(keyed), Flag(arguments[2]), false);
}

// The first of each of the elements that are equal.
Value UniqueFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  RefusePath(runtime, "unique", arguments[1]);
  std::vector<Value> seen;
  std::vector<Value> unique;
  const auto elements = Elements(runtime, self);
  for (const Value& item : elements->items) {
    const Value key = KeyOf(runtime, item, arguments[1], Flag(arguments[0]));
    RequireHashable(runtime, key);
    const auto same = [&](const Value& other) { return Equal(runtime, key, other); };
    if (std::any_of(seen.begin(), seen.end(), same)) continue;
    runtime.Make(2 * sizeof(Value));
    seen.push_back(key);
    unique.push_back(item);
  }
  return runtime.NewList(std::move(unique));
}

Value MinFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  return Extreme<true>(runtime, self, arguments);
}

Value MaxFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments) {
  return Extreme<false>(runtime, self, arguments);
}

}  // namespace tandem::jinja
