// The tiers of x86-64, best first.
#include "kernels/cpu/tier.h"

namespace tandem::cpu {

TierList CompiledTiers() {
  static const Tier* const tiers[] = {&Avx512Bf16Tier(), &Avx512Tier(), &Avx2Tier(),
                                      &PortableTier()};
  return {tiers, 4};
}

}  // namespace tandem::cpu
