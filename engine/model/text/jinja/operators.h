// What Python does with the values: truth, arithmetic, comparison, items, attributes, slices.
// Each function charges the Runtime and fails as Python would, at the Runtime's line.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/model/text/jinja/ast.h"
#include "engine/model/text/jinja/value.h"

namespace tandem::jinja {

bool Truth(const Value& value);
bool Equal(Runtime& runtime, const Value& a, const Value& b);
// a < b, for numbers and for strings.
bool Less(Runtime& runtime, const Value& a, const Value& b);
bool Contains(Runtime& runtime, const Value& container, const Value& item);
bool Compare(Runtime& runtime, Operator op, const Value& a, const Value& b);

// + - * / // % ~
Value Arithmetic(Runtime& runtime, Operator op, const Value& a, const Value& b);
Value Negate(Runtime& runtime, const Value& value);
// +value: a number, unchanged.
Value Plus(Runtime& runtime, const Value& value);

// object.name and object[key], each falling back on the other as Jinja does; undefined when there
// is neither.
Value GetAttribute(Runtime& runtime, const Value& object, std::string_view name);
Value GetItem(Runtime& runtime, const Value& object, const Value& key);
// space.name = value
void SetAttribute(Runtime& runtime, NamespaceData& space, const std::string& name, Value value);
Value Slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop,
            const Value& step);

// Null when the dict has no such key.
const Value* FindKey(Runtime& runtime, const DictData& dict, const Value& key);

// len(value), in code points for a string.
int64_t Length(Runtime& runtime, const Value& value);
// The elements that a loop goes through: a list's items, a dict's keys, a string's characters.
std::shared_ptr<const ListData> Elements(Runtime& runtime, const Value& value);

// A number's value as an integer, when it is one (bool counts).
std::optional<int64_t> AsInteger(const Value& value);
std::optional<double> AsReal(const Value& value);

}  // namespace tandem::jinja
