// Runs a CUDA kernel compiled as plain C++: block after block, the threads of a block as fibers
// that meet at barriers and in warp operations. One OS thread a grid; grids may run side by side.
// No GPU.
//
// What it shows: wrong indices, masks, unpacking and reductions; shared memory that is read before
// it is written (a block's starts as NaN) or overrun (a guard lies behind it), or before an
// asynchronous copy was waited for (its target is NaN until then); a barrier that not all threads
// reach; and, since blocks run their threads in alternating order, many a missing
// barrier. What it cannot show: speed, bank conflicts, memory ordering between blocks, and whether
// a real device computes as the operations of platform.h say.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// As CUDA names them; those of the thread that runs at the moment.
extern thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace tandem::cuda {

// Does a launch's work in the order of its stream: at once (at_once.cc), or on the stream's own
// time where streams are emulated too (tests/support/emulated_gpus).
void InStream(void* stream, const char* what, std::function<void()> work);

// Calls body(context) once for every thread of the grid. early: the grid might begin before its
// turn, so every thread must call CountWait.
void RunGrid(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(void*), void* context,
             bool early = false);
void CountWait();

// Waits for every thread of the block that has not returned.
void BlockBarrier();

// Lets the other threads of the block go on, and other host threads: for one that looks for what
// another grid stores.
void Yield();

// All 32 lanes bring a slot; the last to come runs operation(slots) for all, and then all go on.
void WarpRendezvous(void* slot, void (*operation)(void* const* slots));

// Asynchronous copies of the running thread, in groups: they are made when their group is waited
// for, as late as CUDA allows, and their targets are NaN from the beginning on. Zeros from nullptr.
void BeginCopy(void* to, const void* from, size_t bytes);
void EndCopyGroup();
// All but the newest `pending` groups.
void FinishCopyGroups(size_t pending);

// The running block's dynamic shared memory.
std::byte* SharedMemory();

}  // namespace tandem::cuda
