// The filters that order elements or find those that are equal: rows of FindFilter's table.
#pragma once

#include "engine/model/text/jinja/callable.h"
#include "engine/model/text/jinja/value.h"

namespace tandem::jinja {

Value SortFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments);
Value DictSort(Runtime& runtime, const Value& self, const BoundArguments& arguments);
Value MinFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments);
Value MaxFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments);
Value UniqueFilter(Runtime& runtime, const Value& self, const BoundArguments& arguments);

}  // namespace tandem::jinja
