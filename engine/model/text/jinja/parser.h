// Parses a template into statements. Pure; any thread may call it.
//
//   Block program = Parse("{% if x %}yes{% endif %}");
#pragma once

#include <string_view>

#include "engine/model/text/jinja/ast.h"

namespace tandem::jinja {

// Throws Error(kModelFile) for a template that is no Jinja, and Error(kUnsupported), naming the
// construct, for Jinja outside the subset; both name the line.
Block Parse(std::string_view source);

}  // namespace tandem::jinja
