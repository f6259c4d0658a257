// The CPU's kernels and link arithmetic, run when a fake device gets to them (fake_machine.h).
#pragma once

#include <memory>

#include "engine/device/device.h"
#include "engine/link/wire_ops.h"
#include "kernels/ops.h"

namespace tandem::testing {

class FakeMachine;

// In the compute queue of `device`; all outlive the result. What spans hold is copied before a call
// returns.
std::unique_ptr<Ops> MakeFakeOps(Ops& inner, FakeMachine& machine, Device& device);

WireOps& FakeWireOps();

}  // namespace tandem::testing
