// Ops of the host's processor whose every call is put in a queue and done in its order, on the
// queue's thread: what a call is told in spans it keeps until then.
//
// One thread asks; the inner Ops, and the team behind them, are the queue's alone.
#pragma once

#include <memory>

#include "kernels/ops.h"

namespace tandem {

// `queue` is the compute queue of the device whose memory the ops work on, and outlives the result.
std::unique_ptr<Ops> MakeQueuedOps(std::unique_ptr<Ops> inner, DeviceQueue& queue);

}  // namespace tandem
