// The tiers of x86-64, best first.
#include "kernels/cpu/amx.h"
#include "kernels/cpu/tier.h"

namespace tandem::cpu {

TierList CompiledTiers() {
  static const Tier* const tiers[] = {&AmxTier(), &Avx512Bf16Tier(), &Avx512Tier(), &Avx2Tier(),
                                      &PortableTier()};
  return {tiers, 5};
}

}  // namespace tandem::cpu
