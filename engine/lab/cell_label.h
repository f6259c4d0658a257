// How people read the values that a cell of a sweep has on its axes, in tables and charts.
#pragma once

#include <string>

namespace tandem {

// "single", but "sequences=4": a value alone where it speaks for itself.
std::string AxisLabel(const std::string& axis, const std::string& value);

}  // namespace tandem
