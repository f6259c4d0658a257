#include "tests/support/cuda_emulation/emulation.h"

#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "tests/support/cuda_emulation/fiber.h"

thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace tandem::cuda {
namespace {

constexpr unsigned kWarp = 32;
constexpr size_t kGuardBytes = 64;
constexpr unsigned char kPoison = 0xff;  // as floats and as halves: NaN

enum class ThreadStatus : uint8_t { kReady, kAtBarrier, kInWarp, kDone };

struct Warp {
  void* slots[kWarp] = {};
  void (*operation)(void* const*) = nullptr;
  unsigned arrived = 0;
};

struct AsyncCopy {
  void* to;
  const void* from;
  size_t bytes;
};
// A thread's copies: `ends` are where its groups end in the list.
struct ThreadCopies {
  std::vector<AsyncCopy> list;
  std::vector<size_t> ends;
};

// The block that runs. One a thread: launches are never nested.
struct Block {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<ThreadStatus> status;
  std::vector<Warp> warps;
  std::vector<ThreadCopies> copies;
  std::vector<std::byte> shared;
  unsigned threads = 0;
  unsigned at_barrier = 0;
  unsigned done = 0;
  unsigned waited = 0;  // threads that waited for the kernel before
  unsigned running = 0;
  bool yields = false;  // a thread did in this round
  void (*body)(void*) = nullptr;
  void* context = nullptr;
};

Block& TheBlock() {
  static thread_local Block block;
  return block;
}

void ReleaseBarrier(Block& block) {
  if (block.at_barrier == 0 || block.at_barrier + block.done < block.threads) return;
  block.at_barrier = 0;
  for (ThreadStatus& status : block.status) {
    if (status == ThreadStatus::kAtBarrier) status = ThreadStatus::kReady;
  }
}

void ThreadMain(void*) {
  Block& block = TheBlock();
  for (;;) {
    block.body(block.context);
    block.status[block.running] = ThreadStatus::kDone;
    ++block.done;
    ReleaseBarrier(block);
    block.fibers[block.running]->Leave();
  }
}

dim3 ThreadIndex(unsigned i) {
  return {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
}

void Start(Block& block, unsigned threads) {
  while (block.fibers.size() < threads) {
    block.fibers.push_back(std::make_unique<Fiber>(ThreadMain, nullptr));
  }
  block.threads = threads;
  block.status.assign(threads, ThreadStatus::kReady);
  block.warps.assign((threads + kWarp - 1) / kWarp, Warp{});
  if (block.copies.size() < threads) block.copies.resize(threads);
  for (ThreadCopies& copies : block.copies) {
    copies.list.clear();
    copies.ends.clear();
  }
  block.at_barrier = 0;
  block.done = 0;
  block.waited = 0;
  std::memset(block.shared.data(), kPoison, block.shared.size());
}

// A thread that only looks should not keep the one that it waits for from a busy processor.
void LetOthersRun(unsigned rounds_waited) {
  if (rounds_waited < 8) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

void RunBlock(Block& block, bool backwards) {
  unsigned rounds_waited = 0;
  while (block.done < block.threads) {
    bool moved = false;
    for (unsigned i = 0; i < block.threads; ++i) {
      const unsigned thread = backwards ? block.threads - 1 - i : i;
      if (block.status[thread] != ThreadStatus::kReady) continue;
      moved = true;
      block.running = thread;
      threadIdx = ThreadIndex(thread);
      block.fibers[thread]->Enter();
    }
    rounds_waited = std::exchange(block.yields, false) ? rounds_waited + 1 : 0;
    if (rounds_waited > 0) LetOthersRun(rounds_waited);
    Check(moved,
          "cuda emulation: threads wait for others that never come (a barrier or a warp "
          "operation that not all threads reach)");
  }
  for (size_t i = block.shared.size() - kGuardBytes; i < block.shared.size(); ++i) {
    Check(block.shared[i] == std::byte{kPoison}, "cuda emulation: shared memory was overrun");
  }
}

}  // namespace

void RunGrid(dim3 grid, dim3 block_dim, size_t shared_bytes, void (*body)(void*), void* context,
             bool early) {
  Block& block = TheBlock();
  Check(block.body == nullptr, "cuda emulation: a launch within a launch");
  const unsigned threads = block_dim.x * block_dim.y * block_dim.z;
  Check(threads > 0 && threads <= 1024, "cuda emulation: 1 to 1024 threads a block");
  Check(grid.x > 0 && grid.y > 0 && grid.z > 0, "cuda emulation: an empty grid");
  Check(grid.y <= 65535 && grid.z <= 65535, "cuda emulation: y and z of a grid end at 65535");
  block.body = body;
  block.context = context;
  block.shared.resize(shared_bytes + kGuardBytes);
  gridDim = grid;
  blockDim = block_dim;
  bool backwards = false;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        Start(block, threads);
        RunBlock(block, backwards);
        Check(!early || block.waited == threads,
              "cuda emulation: a kernel that may begin early has threads that never waited for the "
              "one before it");
        backwards = !backwards;
      }
    }
  }
  block.body = nullptr;
}

void CountWait() { ++TheBlock().waited; }

void BlockBarrier() {
  Block& block = TheBlock();
  const unsigned self = block.running;
  block.status[self] = ThreadStatus::kAtBarrier;
  ++block.at_barrier;
  ReleaseBarrier(block);
  if (block.status[self] != ThreadStatus::kReady) block.fibers[self]->Leave();
}

void Yield() {
  Block& block = TheBlock();
  block.yields = true;
  block.fibers[block.running]->Leave();
}

void WarpRendezvous(void* slot, void (*operation)(void* const*)) {
  Block& block = TheBlock();
  const unsigned self = block.running;
  const unsigned first = self / kWarp * kWarp;
  Check(first + kWarp <= block.threads, "cuda emulation: a warp operation in a partial warp");
  Warp& warp = block.warps[self / kWarp];
  Check(warp.arrived == 0 || warp.operation == operation,
        "cuda emulation: lanes of a warp met in different operations");
  warp.operation = operation;
  warp.slots[self % kWarp] = slot;
  if (++warp.arrived < kWarp) {
    block.status[self] = ThreadStatus::kInWarp;
    block.fibers[self]->Leave();
    return;
  }
  operation(warp.slots);
  warp.arrived = 0;
  for (unsigned i = first; i < first + kWarp; ++i) block.status[i] = ThreadStatus::kReady;
}

void BeginCopy(void* to, const void* from, size_t bytes) {
  Block& block = TheBlock();
  std::memset(to, kPoison, bytes);
  block.copies[block.running].list.push_back({to, from, bytes});
}

void EndCopyGroup() {
  ThreadCopies& copies = TheBlock().copies[TheBlock().running];
  copies.ends.push_back(copies.list.size());
}

void FinishCopyGroups(size_t pending) {
  ThreadCopies& copies = TheBlock().copies[TheBlock().running];
  if (copies.ends.size() <= pending) return;
  const size_t groups = copies.ends.size() - pending;
  const size_t end = copies.ends[groups - 1];
  for (size_t i = 0; i < end; ++i) {
    const AsyncCopy& copy = copies.list[i];
    if (copy.from == nullptr) {
      std::memset(copy.to, 0, copy.bytes);
    } else {
      std::memcpy(copy.to, copy.from, copy.bytes);
    }
  }
  copies.list.erase(copies.list.begin(), copies.list.begin() + static_cast<ptrdiff_t>(end));
  copies.ends.erase(copies.ends.begin(), copies.ends.begin() + static_cast<ptrdiff_t>(groups));
  for (size_t& left : copies.ends) left -= end;
}

std::byte* SharedMemory() { return TheBlock().shared.data(); }

}  // namespace tandem::cuda
