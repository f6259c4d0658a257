// What templates can call: filters (x|name), tests (x is name) and methods (x.name()), each a table
// by name. The parser looks names up, so an unknown one is an error before anything runs.
//
// Constant tables; any thread may read them.
//
//   const Callable* trim = FindFilter("trim");
//   Value v = Call(runtime, *trim, value, arguments);
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/model/text/jinja/value.h"

namespace tandem::jinja {

// Arguments in the order of the parameters; empty where the template gave none.
using BoundArguments = std::vector<std::optional<Value>>;

struct Callable {
  std::string_view name;
  std::vector<std::string_view> parameters;  // behind the value it applies to
  size_t required = 0;                       // the first so many must be given
  Value (*function)(Runtime& runtime, const Value& self, const BoundArguments& arguments) = nullptr;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// Null when there is none by that name.
const Callable* FindFilter(std::string_view name);
const Callable* FindTest(std::string_view name);
const Callable* FindMethod(std::string_view name);

// Binds the arguments to the parameters, fails when they do not fit, and calls.
Value Call(Runtime& runtime, const Callable& callable, const Value& self, Arguments arguments);

}  // namespace tandem::jinja
