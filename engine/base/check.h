// Checks for bugs in tandem itself. A failed check prints where it stood and aborts; input that may
// be wrong (files, YAML, plugins, requests) is never checked this way, see base/error.h.
#pragma once

#include <source_location>
#include <string_view>

namespace tandem {

// Aborts with `what` and the caller's location unless `condition` holds.
void Check(bool condition, std::string_view what = "check failed",
           std::source_location where = std::source_location::current());

}  // namespace tandem
