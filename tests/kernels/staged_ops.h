// Ops on memory of the host, carried out by ops on a GPU: each call brings its operands there and
// its results back. Slow, and what lets the suites, which keep everything in vectors, run on a GPU.
#pragma once

#include <memory>

#include "engine/device/device.h"
#include "kernels/ops.h"

namespace tandem {

struct HostCopies {
  void (*to_gpu)(void* to, const void* from, size_t bytes);
  void (*to_host)(void* to, const void* from, size_t bytes);
};

// `device` is the memory that `inner` works on; it outlives the result.
std::unique_ptr<Ops> MakeStagedOps(std::unique_ptr<Ops> inner, Device& device,
                                   const HostCopies& copies);

}  // namespace tandem
