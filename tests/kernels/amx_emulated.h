// The AMX tier on a processor that has AVX-512 but no tiles, for tests alone: the very object code
// of the tier runs, and each tile instruction, which such a processor refuses, is carried out by a
// signal handler on tiles in software (tile_machine.h). Slow: some microseconds an instruction.
#pragma once

#include "kernels/cpu/tier.h"

namespace tandem {

struct EmulatedTier {
  const cpu::Tier* tier = nullptr;  // named "amx_emulated"
  const char* missing = nullptr;    // why there is none
};
EmulatedTier AmxEmulated();

}  // namespace tandem
