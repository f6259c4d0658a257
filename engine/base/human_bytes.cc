#include "engine/base/human_bytes.h"

#include <fmt/format.h>

#include <iterator>

namespace tandem {

std::string HumanBytes(Bytes bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  auto amount = static_cast<double>(bytes.value);
  size_t unit = 0;
  while (amount >= 1000 && unit + 1 < std::size(kUnits)) {
    amount /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes.value)
                   : fmt::format("{:.3g} {}", amount, kUnits[unit]);
}

}  // namespace tandem
