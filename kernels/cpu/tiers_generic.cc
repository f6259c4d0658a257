// The tiers of a processor that none was written for.
#include "kernels/cpu/tier.h"

namespace tandem::cpu {

TierList CompiledTiers() {
  static const Tier* const tiers[] = {&PortableTier()};
  return {tiers, 1};
}

}  // namespace tandem::cpu
