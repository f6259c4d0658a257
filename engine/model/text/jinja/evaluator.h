// Runs a parsed template.
//
//   std::string text = Evaluate(program, {{"bos_token", ...}, {"messages", ...}}, runtime);
#pragma once

#include <string>
#include <unordered_map>

#include "engine/model/text/jinja/ast.h"
#include "engine/model/text/jinja/value.h"

namespace tandem::jinja {

using Variables = std::unordered_map<std::string, Value>;

// Throws Error(kInvalidArgument) when the template raises, does what its language forbids or
// exceeds a limit, and Error(kUnsupported) for what only running it can show to be outside the
// subset.
std::string Evaluate(const Block& program, Variables variables, Runtime& runtime);

}  // namespace tandem::jinja
