// One-shot all-reduce, send and receive over slots that two devices reach (peer_layout.h), in one
// kernel a rank, and copies over peer memory. All-reduces of rows with what follows them are in
// p2p_rows.cu, over the same slots and counts.
//
//   all-reduce   out = wire(in of rank 0) + wire(in of rank 1) + ...   (n) f32, in that order
//   send         out of the receiver = wire(in of the sender)          (n) f32
//
// Block c serves channel c; a thread treats 4 elements at a time. In `words` a chunk is a thread's
// 4 elements once; in `blocks` 8,192 elements. Moves, per rank and peer: in `words` twice the
// wire's bytes (q8: 16 for 4 elements), in `blocks` the wire's bytes and a flag a chunk.
//
// Why nothing is lost, read twice or torn (r a rank, p a peer, both at generation g of a channel):
//
// 1. r reads slot g % 2 of what p sent only when it holds generation g. In `words` payload and
//    generation are one scalar of 8 bytes, stored and read at once. In `blocks` the flag is stored
//    after a barrier and a fence, and read before a fence and a barrier: the stores of p's block
//    are before the barrier (bar.sync orders the block), that is before the fence of the thread
//    that stores the flag (fence.acq_rel.sys and a relaxed store: a release pattern, cumulative
//    over the barrier), which synchronises with the load that sees it and the fence behind (an
//    acquire pattern), which is before the barrier that r's block reads behind.
// 2. p overwrites slot g % 2 at g + 2, and r has read it by then. All-reduce: p begins g + 2
//    when it has finished g + 1, for which it saw a word (or flag) of r with g + 1, and r's block
//    stored that behind the barrier at its end of g, where all its threads had read. So two slots
//    do, without any barrier between the ranks. In `blocks` r's flag of g + 1 carries a fence: the
//    order is the model's. In `words` it rests on r's loads having returned before what depends on
//    them is stored, which no GPU undoes (PTX: values do not come out of thin air); were it undone,
//    r would wait for a generation that is gone and give up, not use a wrong value. Send: nothing
//    comes back from the receiver, so it acknowledges, and p waits for the acknowledgement of g.
// 3. A word's generation is compared for equality and counts modulo 2^32. Every 65,536 generations
//    all words of both slots are written (kSweepMask), so none is ever that old.
// 4. Both ends of a channel count alike: they are asked for the same messages in the same order, a
//    message uses the same channels at both, and a count is kept in the rank's memory from kernel
//    to kernel (so graphs may replay them). Streams order the kernels of a rank.
// 5. Kernels that wait for one another must all get to run. Those of one message are launched one
//    after the other by one thread, behind the work that they need: so whatever queue of the
//    hardware a stream shares, nothing stands before one that waits for another of them. Few blocks
//    are asked for: all fit beside whatever else runs on a GPU that two ranks share.
//
// Needs sm_80 (relaxed and fence at system scope are sm_70's).
#include "engine/link/cuda/p2p_kernels.h"
#include "engine/link/cuda/p2p_protocol.cuh"

namespace tandem::peer {
namespace {

constexpr uint32_t kCopyBlocks = 64;
constexpr uint32_t kQuadsPerChunk = kBlocksElems / kQuad;

__device__ __forceinline__ uint64_t ChunkBegin(Way way) { return blockIdx.x * ChunkElems(way); }
__device__ __forceinline__ uint64_t ChunkStep(Way way) { return gridDim.x * ChunkElems(way); }

template <WireType wire>
__global__ void ReduceWords(ReduceArgs args) {
  if (cuda::BarrierOr(HasGivenUp(args.bound))) return;
  uint32_t generation = args.generations[blockIdx.x];
  const uint64_t sent = cuda::NowNanos();
  for (uint64_t at = ChunkBegin(Way::kWords); at < args.n; at += ChunkStep(Way::kWords)) {
    ++generation;
    StampReduce(args, Way::kWords, blockIdx.x, generation, sent);
    const uint64_t mine = at + uint64_t{threadIdx.x} * kQuad;
    const bool holds = mine < args.n;
    const Packed own = Pack<wire>(LoadQuad(args.in, mine, args.n));
    for (uint32_t r = 0; r < args.ranks; ++r) {
      if (r == args.rank) continue;
      StoreWords<wire>(SlotOf(args.to[r], Way::kWords, generation), threadIdx.x, own, generation,
                       holds);
    }
    bool failed = false;
    Quad sum = {};
    for (uint32_t r = 0; r < args.ranks && holds && !failed; ++r) {
      Packed part = own;
      if (r != args.rank) {
        failed = !AwaitWords<wire>(SlotOf(args.from[r], Way::kWords, generation), threadIdx.x,
                                   generation, args.bound, r, part);
      }
      AddInOrder(sum, Unpack<wire>(part), r == 0);
    }
    if (holds && !failed) StoreQuad(args.out, mine, args.n, sum);
    const bool is_last = at + ChunkStep(Way::kWords) >= args.n;
    failed = failed || !PlayLink(args, Way::kWords, blockIdx.x, generation, is_last);
    // The end of this generation: all threads have read (2. above).
    if (cuda::BarrierOr(failed)) return;
  }
  if (threadIdx.x == 0) args.generations[blockIdx.x] = generation;
}

// Sums chunk [at, at + 8192) when all partials of it are there.
template <WireType wire>
__device__ __forceinline__ void AddBlocks(const ReduceArgs& args, uint64_t at,
                                          uint32_t generation) {
  for (uint32_t q = threadIdx.x; q < kQuadsPerChunk; q += kThreads) {
    const uint64_t mine = at + uint64_t{q} * kQuad;
    // All lanes of a warp, for the scale that they share; its own part once more, rounded alike.
    const Packed own = Pack<wire>(LoadQuad(args.in, mine, args.n));
    if (mine >= args.n) continue;
    Quad sum = {};
    for (uint32_t r = 0; r < args.ranks; ++r) {
      const Packed part =
          r == args.rank ? own : LoadBlock<wire>(SlotOf(args.from[r], Way::kBlocks, generation), q);
      AddInOrder(sum, Unpack<wire>(part), r == 0);
    }
    StoreQuad(args.out, mine, args.n, sum);
  }
}

template <WireType wire>
__global__ void ReduceBlocks(ReduceArgs args) {
  if (cuda::BarrierOr(HasGivenUp(args.bound))) return;
  uint32_t generation = args.generations[blockIdx.x];
  const uint32_t thread = threadIdx.x;
  const uint64_t sent = cuda::NowNanos();
  for (uint64_t at = ChunkBegin(Way::kBlocks); at < args.n; at += ChunkStep(Way::kBlocks)) {
    ++generation;
    StampReduce(args, Way::kBlocks, blockIdx.x, generation, sent);
    for (uint32_t q = thread; q < kQuadsPerChunk; q += kThreads) {
      const uint64_t mine = at + uint64_t{q} * kQuad;
      const Packed own = Pack<wire>(LoadQuad(args.in, mine, args.n));
      for (uint32_t r = 0; r < args.ranks && mine < args.n; ++r) {
        if (r == args.rank) continue;
        StoreBlock<wire>(SlotOf(args.to[r], Way::kBlocks, generation), q, own);
      }
    }
    // The block's stores are before the fence of the threads that store flags.
    cuda::BarrierOr(false);
    bool failed = false;
    if (thread < args.ranks && thread != args.rank) {
      cuda::FenceSystem();  // release: payload before flag, for the peer
      cuda::StoreWord(FlagOf(SlotOf(args.to[thread], Way::kBlocks, generation)), generation);
      failed = !AwaitFlag(SlotOf(args.from[thread], Way::kBlocks, generation), generation,
                          args.bound, thread);
      cuda::FenceSystem();  // acquire: the flag before the payload that the block reads
    }
    if (cuda::BarrierOr(failed)) return;
    AddBlocks<wire>(args, at, generation);
    const bool is_last = at + ChunkStep(Way::kBlocks) >= args.n;
    failed = !PlayLink(args, Way::kBlocks, blockIdx.x, generation, is_last);
    // The end of this generation: all threads have read (2. above).
    if (cuda::BarrierOr(failed)) return;
  }
  if (thread == 0) args.generations[blockIdx.x] = generation;
}

__device__ __forceinline__ uint32_t* AckOf(const SendArgs& args) {
  return reinterpret_cast<uint32_t*>(args.acks + uint64_t{blockIdx.x} * kAckStride);
}

// Until the receiver has read what slot generation % 2 held before. All threads get the answer.
__device__ __forceinline__ bool SlotIsFree(const SendArgs& args, uint32_t generation) {
  bool failed = false;
  if (threadIdx.x == 0) {
    failed = !SpinUntil(args.bound, args.peer, [&] {
      return static_cast<int32_t>(cuda::LoadWord(AckOf(args)) - (generation - 2)) >= 0;
    });
    cuda::FenceSystem();  // acquire: the receiver's reads are before the stores that follow
  }
  return !cuda::BarrierOr(failed);
}

// Tells the sender that this block has read the generation. Behind a barrier.
__device__ __forceinline__ void Acknowledge(const SendArgs& args, uint32_t generation) {
  if (threadIdx.x != 0) return;
  cuda::FenceSystem();  // release: the block's reads are before the acknowledgement
  cuda::StoreWord(AckOf(args), generation);
}

template <WireType wire, Way way>
__global__ void Send(SendArgs args) {
  if (cuda::BarrierOr(HasGivenUp(args.bound))) return;
  uint32_t generation = args.generations[blockIdx.x];
  const uint32_t thread = threadIdx.x;
  const uint64_t sent = cuda::NowNanos();
  for (uint64_t at = ChunkBegin(way); at < args.n; at += ChunkStep(way)) {
    ++generation;
    if (!SlotIsFree(args, generation)) return;
    std::byte* slot = SlotOf(args.slots, way, generation);
    if (args.shaped_nanos != 0 && thread == 0) StoreStamp(slot, generation, sent);
    if constexpr (way == Way::kWords) {
      const uint64_t mine = at + uint64_t{thread} * kQuad;
      StoreWords<wire>(slot, thread, Pack<wire>(LoadQuad(args.in, mine, args.n)), generation,
                       mine < args.n);
    } else {
      for (uint32_t q = thread; q < kQuadsPerChunk; q += kThreads) {
        const uint64_t mine = at + uint64_t{q} * kQuad;
        const Packed own = Pack<wire>(LoadQuad(args.in, mine, args.n));
        if (mine < args.n) StoreBlock<wire>(slot, q, own);
      }
      cuda::BarrierOr(false);  // the block's stores are before the fence
      if (thread == 0) {
        cuda::FenceSystem();  // release: payload before flag
        cuda::StoreWord(FlagOf(slot), generation);
      }
    }
  }
  if (thread == 0) args.generations[blockIdx.x] = generation;
}

template <WireType wire, Way way>
__global__ void Receive(SendArgs args) {
  if (cuda::BarrierOr(HasGivenUp(args.bound))) return;
  uint32_t generation = args.generations[blockIdx.x];
  const uint32_t thread = threadIdx.x;
  for (uint64_t at = ChunkBegin(way); at < args.n; at += ChunkStep(way)) {
    ++generation;
    const std::byte* slot = SlotOf(const_cast<const std::byte*>(args.slots), way, generation);
    bool failed = false;
    if constexpr (way == Way::kWords) {
      const uint64_t mine = at + uint64_t{thread} * kQuad;
      Packed part = {};
      if (mine < args.n) {
        failed = !AwaitWords<wire>(slot, thread, generation, args.bound, args.peer, part);
      }
      if (mine < args.n && !failed) StoreQuad(args.out, mine, args.n, Unpack<wire>(part));
    } else {
      if (thread == 0) {
        failed = !AwaitFlag(slot, generation, args.bound, args.peer);
        cuda::FenceSystem();  // acquire: the flag before the payload that the block reads
      }
      if (cuda::BarrierOr(failed)) return;
      for (uint32_t q = thread; q < kQuadsPerChunk; q += kThreads) {
        const uint64_t mine = at + uint64_t{q} * kQuad;
        if (mine < args.n)
          StoreQuad(args.out, mine, args.n, Unpack<wire>(LoadBlock<wire>(slot, q)));
      }
    }
    // The stamp is read before the slot is given back.
    uint64_t sent = 0;
    const bool is_last = at + ChunkStep(way) >= args.n;
    if (args.shaped_nanos != 0 && thread == 0 && is_last && !failed &&
        AwaitStamp(slot, generation, args.bound, args.peer, sent)) {
      WaitUntil(sent + args.shaped_nanos);
    }
    if (cuda::BarrierOr(failed)) return;
    Acknowledge(args, generation);
  }
  if (thread == 0) args.generations[blockIdx.x] = generation;
}

struct alignas(16) Wide {
  uint64_t half[2];
};

template <typename Unit>
__device__ __forceinline__ void CopyUnits(const CopyArgs& args) {
  const uint64_t units = args.row_bytes / sizeof(Unit);  // of a row
  const uint64_t self = uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  const uint64_t step = uint64_t{gridDim.x} * kThreads;
  // Divisions are slow: a step is as many rows and units on each time.
  const uint64_t step_rows = step / units, step_units = step % units;
  uint64_t row = self / units, at = self % units;
  while (row < args.rows) {
    reinterpret_cast<Unit*>(args.to + row * args.to_stride)[at] =
        reinterpret_cast<const Unit*>(args.from + row * args.from_stride)[at];
    row += step_rows;
    at += step_units;
    if (at < units) continue;
    at -= units;
    ++row;
  }
}

// As many bytes at a time as everything is aligned to: 16, 4, 2 or 1. Ordinary loads and stores:
// what orders them is the end of the kernel and the queues.
__global__ void Copy(CopyArgs args) {
  const uint64_t begun = args.shaped_nanos != 0 ? cuda::NowNanos() : 0;
  const uint64_t aligned = reinterpret_cast<uintptr_t>(args.to) |
                           reinterpret_cast<uintptr_t>(args.from) | args.row_bytes |
                           (args.rows > 1 ? args.to_stride | args.from_stride : 0);
  if (aligned % sizeof(Wide) == 0) {
    CopyUnits<Wide>(args);
  } else if (aligned % sizeof(uint32_t) == 0) {
    CopyUnits<uint32_t>(args);
  } else if (aligned % sizeof(uint16_t) == 0) {
    CopyUnits<uint16_t>(args);
  } else {
    CopyUnits<uint8_t>(args);
  }
  // Both ends are in their queues behind what was asked before: the copy is sent when it begins.
  if (args.shaped_nanos != 0) WaitUntil(begun + args.shaped_nanos);
}

}  // namespace

void LaunchReduce(WireType wire, Way way, uint32_t channels, void* stream, const ReduceArgs& args) {
  ForWire(wire, [&](auto type) {
    cuda::LaunchPeer("all-reduce",
                     way == Way::kWords ? ReduceWords<type.value> : ReduceBlocks<type.value>,
                     channels, kThreads, stream, args);
  });
}

void LaunchSend(WireType wire, Way way, uint32_t channels, void* stream, const SendArgs& args) {
  ForWire(wire, [&](auto type) {
    cuda::LaunchPeer(
        "send", way == Way::kWords ? Send<type.value, Way::kWords> : Send<type.value, Way::kBlocks>,
        channels, kThreads, stream, args);
  });
}

void LaunchReceive(WireType wire, Way way, uint32_t channels, void* stream, const SendArgs& args) {
  ForWire(wire, [&](auto type) {
    cuda::LaunchPeer(
        "receive",
        way == Way::kWords ? Receive<type.value, Way::kWords> : Receive<type.value, Way::kBlocks>,
        channels, kThreads, stream, args);
  });
}

void LaunchCopy(void* stream, const CopyArgs& args) {
  const uint64_t bytes = args.row_bytes * args.rows;
  const uint64_t blocks = (bytes + kThreads * 64 - 1) / (kThreads * 64);
  cuda::LaunchPeer("copy", Copy, static_cast<uint32_t>(blocks < kCopyBlocks ? blocks : kCopyBlocks),
                   kThreads, stream, args);
}

void VisitKernels(void (*visit)(const void* kernel)) {
  const auto show = [visit](auto* kernel) { visit(reinterpret_cast<const void*>(kernel)); };
  for (WireType wire : {WireType::kF32, WireType::kBf16, WireType::kQ8}) {
    ForWire(wire, [&](auto type) {
      show(ReduceWords<type.value>);
      show(ReduceBlocks<type.value>);
      show(Send<type.value, Way::kWords>);
      show(Send<type.value, Way::kBlocks>);
      show(Receive<type.value, Way::kWords>);
      show(Receive<type.value, Way::kBlocks>);
    });
  }
  show(Copy);
  VisitRowKernels(visit);
}

}  // namespace tandem::peer
