// For processors that are not x86-64.
#include "tests/kernels/amx_emulated.h"

namespace tandem {

EmulatedTier AmxEmulated() { return {.missing = "AMX is a part of x86-64"}; }

}  // namespace tandem
