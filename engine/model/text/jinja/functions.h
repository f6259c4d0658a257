// The global functions that templates find: range(), namespace(), raise_exception(),
// strftime_now().
//
//   if (IsFunction(name)) value = CallFunction(runtime, name, std::move(arguments));
#pragma once

#include <string_view>

#include "engine/model/text/jinja/callable.h"
#include "engine/model/text/jinja/value.h"

namespace tandem::jinja {

bool IsFunction(std::string_view name);

// Calls the function by that name, and fails when it cannot take the arguments.
Value CallFunction(Runtime& runtime, std::string_view name, Arguments arguments);

}  // namespace tandem::jinja
