// Sizes for people to read. What programs read has the exact bytes.
#pragma once

#include <string>

#include "engine/base/units.h"

namespace tandem {

// "813 B", "12.3 MB", "1.2 GB": powers of 1000, three digits.
std::string HumanBytes(Bytes bytes);

}  // namespace tandem
