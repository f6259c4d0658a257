// How many rows of a matrix a back end may pack together. What a last panel lacks is packed as zeros,
// so memory tables must count with it; they know no back end, and no back end knows them.
#pragma once

#include <cstdint>

namespace tandem {

inline constexpr uint32_t kMostPanelRows = 16;

}  // namespace tandem
