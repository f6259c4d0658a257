// Small all-reduces over memory that NCCL has mapped for all GPUs at once: symmetric windows
// (NCCL 2.27 and later, where its GPUs reach one another), over which its kernels gather in one
// step and without buffers of its own. The partials are put there in their wire form and gathered
// (ncclAllGather); the arithmetic stays ours, in rank order, so results are those of every other
// path.
//
// The values of a step do not lie in windows themselves: NCCL wants what a collective works on at
// the same offset on every rank, and values are laid out by device (engine/plan/value_layout.h),
// each as its own arena is filled. So partials are staged. On the bf16 and q8 wires that costs
// nothing, for they are encoded anyway, and into the window as well as elsewhere; on the f32 wire
// it costs a copy: of 16 KiB, a launch, one to two microseconds; of 1 MiB, 2 MiB of memory traffic,
// under a microsecond more at 3 TB/s, where NCCL's own send would pass it through a buffer on the
// receiver's side. Against that stand NCCL's latencies: its authors report several times less for
// gathers over windows than without, of some ten microseconds. Larger messages than
// kMostWindowBytes are a link's time, which windows change little and a copy adds to; they are sent
// as before.
//
// NCCL allocates the windows; no ledger knows of them, as of its other memory (kGpuReserve covers
// both).
//
// Implemented by nccl_windows.cc, or by no_nccl_windows.cc where CMake found an NCCL older than
// 2.27.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "engine/link/cuda/nccl_calls.h"
#include "engine/link/cuda/nccl_watch.h"
#include "engine/link/direct_collectives.h"
#include "engine/link/wire_ops.h"

namespace tandem {

// Of a partial in its wire form.
inline constexpr uint64_t kMostWindowBytes = uint64_t{1} << 20;

// By rank. Null where NCCL grants no windows, and why. All outlive the result; `comms` are as good
// as new if it is null. What was asked of it is done when it goes. It takes nothing any more once
// the communicators are others than those that it was made with.
std::unique_ptr<DirectCollectives> MakeNcclWindowSums(
    NcclComms& comms, NcclWatch& watch, std::span<const std::unique_ptr<WireOps>> wire_ops,
    std::string& why);

}  // namespace tandem
