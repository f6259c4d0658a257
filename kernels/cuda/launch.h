// The stream that this folder's kernels are asked of, and whether they may begin early.
//
// A kernel that begins early is started while the one before it in the stream still runs
// (programmatic dependent launch, code for sm_90 and later), so that its blocks are there, and what
// it may fetch ahead is on its way, when that one ends. So every kernel that is started so
// (LaunchEarly: all but those of top_k.cu and of the probes) begins with WaitForPrevious() in every
// thread: nothing is read or written before it. The one exception are weights, which may be brought
// into the L2 cache by prefetches: these carry no value, so weights that a copy has just brought
// are read as they are. A kernel lets the next one begin only after its own wait; so when a kernel
// has ended, all before it have.
#pragma once

namespace tandem::cuda {

struct GpuStream {
  void* handle = nullptr;  // a cudaStream_t
  bool early = false;
  operator void*() const { return handle; }  // NOLINT: where kernels need no more
};

}  // namespace tandem::cuda
