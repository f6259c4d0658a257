// The CPU back end over a given tier, whether or not it is one of those compiled in: for tests that
// bring their own. MakeCpuOps (kernels/ops.h) chooses by name.
#pragma once

#include <memory>

#include "kernels/cpu/tier.h"

namespace tandem::cpu {

// The caller knows that the tier can run here, and options name no other. `pool` and `tier` outlive
// the result.
std::unique_ptr<Ops> MakeOps(ThreadPool& pool, const Tier& tier, const CpuOpsOptions& options);

}  // namespace tandem::cpu
