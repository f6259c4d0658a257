// The launches of p2p_kernels.cu and p2p_rows.cu. `stream` as DeviceQueue::native() gives it; the
// caller has made its device current. Includes no CUDA header.
#pragma once

#include <cstdint>

#include "engine/link/peer_layout.h"
#include "engine/plan/plan.h"

namespace tandem::peer {

// `channels` blocks; the same number at every rank, or both ends.
void LaunchReduce(WireType wire, Way way, uint32_t channels, void* stream, const ReduceArgs& args);
// `blocks` of args.row_channels channels each.
void LaunchReduceRows(WireType wire, uint32_t blocks, void* stream, const RowsArgs& args);
void LaunchSend(WireType wire, Way way, uint32_t channels, void* stream, const SendArgs& args);
void LaunchReceive(WireType wire, Way way, uint32_t channels, void* stream, const SendArgs& args);
void LaunchCopy(void* stream, const CopyArgs& args);

// Calls visit(kernel) for every kernel there is. CUDA loads a kernel when it is first launched, and
// may then wait for what runs: for a kernel that waits for this one.
void VisitKernels(void (*visit)(const void* kernel));
void VisitRowKernels(void (*visit)(const void* kernel));  // those of p2p_rows.cu, of all

}  // namespace tandem::peer
