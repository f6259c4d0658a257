#include "engine/model/text/jinja/callable.h"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::jinja {

Value Call(Runtime& runtime, const Callable& callable, const Value& self, Arguments arguments) {
  const size_t count = callable.parameters.size();
  if (arguments.positional.size() > count) {
    runtime.Fail(fmt::format("'{}' takes {} arguments at most, not {}", callable.name, count,
                             arguments.positional.size()));
  }
  BoundArguments bound(count);
  std::move(arguments.positional.begin(), arguments.positional.end(), bound.begin());
  for (auto& [name, value] : arguments.named) {
    const auto parameter = std::find(callable.parameters.begin(), callable.parameters.end(), name);
    const auto index = static_cast<size_t>(parameter - callable.parameters.begin());
    if (index == count || bound[index]) {
      runtime.Fail(fmt::format("'{}' cannot take the argument '{}'", callable.name, name));
    }
    bound[index] = std::move(value);
  }
  for (size_t i = 0; i < callable.required; ++i) {
    if (!bound[i]) {
      runtime.Fail(
          fmt::format("'{}' needs the argument '{}'", callable.name, callable.parameters[i]));
    }
  }
  return callable.function(runtime, self, bound);
}

}  // namespace tandem::jinja
