#include "engine/device/memory_check.h"

#include <fmt/format.h>

#include <algorithm>

namespace tandem {
namespace {

constexpr Bytes kSlack{uint64_t{16} << 20};

Bytes SlackOf(const MemoryCheck& check) {
  return std::max(kSlack, Bytes{check.ledger.value / 100});
}

bool LacksBytes(const MemoryCheck& check) { return check.driver + SlackOf(check) < check.ledger; }
bool HasTooMany(const MemoryCheck& check) { return check.driver > check.ledger + check.room; }

double MiB(Bytes bytes) { return static_cast<double>(bytes.value) / (1 << 20); }

}  // namespace

bool MemoryCheck::agrees() const { return !LacksBytes(*this) && !HasTooMany(*this); }

std::string MemoryCheck::Text() const {
  std::string text = fmt::format("cuda:{}: the ledger holds {:.1f} MiB, the driver counts {:.1f}",
                                 gpu, MiB(ledger), MiB(driver));
  if (LacksBytes(*this)) {
    text += fmt::format(
        " (want no less, but for {:.0f}): another program gave memory back, or the "
        "ledger books what is not there",
        MiB(SlackOf(*this)));
  } else if (HasTooMany(*this)) {
    text += fmt::format(
        " (want no more than {:.0f} beyond the ledger): another program took some, "
        "or something here is not booked",
        MiB(room));
  }
  return text;
}

}  // namespace tandem
