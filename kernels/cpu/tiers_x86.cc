// The tiers of x86-64, best first.
#include "kernels/cpu/tier.h"

namespace tandem::cpu {

TierList CompiledTiers() {
  static const Tier* const tiers[] = {&Avx2Tier(), &PortableTier()};
  return {tiers, 2};
}

}  // namespace tandem::cpu
