// A GPU's ledgers beside what its driver counts: whether everything that this process holds there
// is booked. What drivers and libraries take besides (contexts, code, communication buffers) has
// its room; memory beyond that belongs to nobody, and the next plan that fits by its table will not
// fit by the card.
//
// Plain values.
//
//   MemoryCheck check{.gpu = 0, .ledger = held, .driver = taken, .room = kGpuReserve};
//   if (!check.agrees()) log.Write(LogLevel::kWarning, check.Text());
#pragma once

#include <string>

#include "engine/base/units.h"

namespace tandem {

struct MemoryCheck {
  int gpu = 0;
  Bytes ledger;  // the sum over the devices that are this GPU
  Bytes driver;  // what was free before them, less what is free now
  Bytes room;    // that the driver may have taken beside the ledger

  // The driver counts no less than the ledger, but for 1 % or 16 MiB (whichever is more) that other
  // programs may have given back meanwhile, and no more than the ledger and the room.
  bool agrees() const;
  // One line: both counts, and what is wrong with them.
  std::string Text() const;
};

}  // namespace tandem
