// Two devices store and load the same pairs of words, each thread a pair of its own, again and
// again; litmus.h says what must never be seen. Moves little: what counts is that both devices are
// at a pair at the same time, so the blocks meet before each turn.
//
// Words are stored and loaded as peer links do it in `words` and with flags: relaxed, at system
// scope. In slots the payload is that of `blocks`: ordinary stores and loads of 16 bytes, which
// caches may keep, in slots that are used every second turn. Between them either nothing, or the
// fence that is under test.
#include <peer_platform.h>

#include "engine/link/cuda/litmus_kernel.h"

namespace tandem::peer {
namespace {

__device__ __forceinline__ void Between(const LitmusArgs& args) {
  if (!args.fenced) return;
  if (args.pattern == LitmusPattern::kStoreBuffering) {
    cuda::FenceSequential();
  } else {
    cuda::FenceSystem();
  }
}

// Until the other device's block is at this turn too. False where it does not come.
__device__ __forceinline__ bool Meet(const LitmusArgs& args, uint32_t turn) {
  bool late = false;
  if (threadIdx.x == 0) {
    cuda::StoreWord(args.here + blockIdx.x * kLitmusStride, turn);
    cuda::FenceSystem();  // so that it is not held back while this thread waits
    const uint64_t start = cuda::NowNanos();
    while (!late && static_cast<int32_t>(cuda::LoadWord(args.there + blockIdx.x * kLitmusStride) -
                                         turn) < 0) {
      cuda::Pause();
      late = cuda::NowNanos() - start > args.bound_nanos;
    }
  }
  return !cuda::BarrierOr(late);
}

// A turn through a slot, in the steps of ReduceBlocks and Receive: what was seen of it; 0 where the
// flag does not come.
__device__ __forceinline__ uint32_t PassSlot(const LitmusArgs& args, uint32_t turn) {
  struct alignas(16) Whole {
    uint32_t word[4];
  };
  const uint32_t generation = turn + 1;
  std::byte* slot = reinterpret_cast<std::byte*>(args.x) +
                    (uint64_t{blockIdx.x} * 2 + turn % 2) * LitmusSlotBytes(blockDim.x);
  std::byte* payload = slot + kDataAt + uint64_t{threadIdx.x} * sizeof(Whole);
  auto* flag = reinterpret_cast<uint32_t*>(slot + kFlagAt);
  if (args.role == 0) {
    cuda::StorePayload(payload, Whole{{generation, generation, generation, generation}});
    cuda::BarrierOr(false);
    if (threadIdx.x == 0) {
      Between(args);
      cuda::StoreWord(flag, generation);
      // Without a fence of the next turn's close behind, which would bring the payload along.
      for (int look = 0; look < 16; ++look) cuda::Pause();
    }
    return kLitmusDone;
  }
  bool late = false;
  if (threadIdx.x == 0) {
    const uint64_t start = cuda::NowNanos();
    while (!late && cuda::LoadWord(flag) != generation) {
      cuda::Pause();
      late = cuda::NowNanos() - start > args.bound_nanos;
    }
    Between(args);
  }
  if (cuda::BarrierOr(late)) return 0;
  const auto whole = cuda::LoadPayload<Whole>(payload);
  bool stale = false;
  for (uint32_t word : whole.word) stale = stale || word != generation;
  return kLitmusDone | (stale ? 1u : 0u);
}

__global__ void Litmus(LitmusArgs args) {
  for (uint32_t turn = 0; turn < args.turns; ++turn) {
    if (!Meet(args, turn + 1)) return;
    const uint64_t pair = (uint64_t{turn} * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x;
    uint32_t* x = args.x + pair * kLitmusStride;
    uint32_t* y = args.y + pair * kLitmusStride;
    uint32_t seen = kLitmusDone;
    if (args.pattern == LitmusPattern::kSlots) {
      seen = PassSlot(args, turn);
      if (seen == 0) return;
    } else if (args.pattern == LitmusPattern::kMessagePassing) {
      if (args.role == 0) {
        cuda::StoreWord(x, 1);
        Between(args);
        cuda::StoreWord(y, 1);
      } else {
        // A few looks, or the flag would hardly ever be met while it is on its way.
        uint32_t flag = 0;
        for (int look = 0; look < 16 && flag == 0; ++look) {
          flag = cuda::LoadWord(y);
          if (flag == 0) cuda::Pause();
        }
        Between(args);
        const uint32_t payload = cuda::LoadWord(x);
        seen |= flag | payload << 1;
      }
    } else {
      cuda::StoreWord(args.role == 0 ? x : y, 1);
      Between(args);
      seen |= cuda::LoadWord(args.role == 0 ? y : x);
    }
    args.seen[pair] = seen;
  }
}

}  // namespace

void LaunchLitmus(uint32_t blocks, uint32_t threads, void* stream, const LitmusArgs& args) {
  cuda::LaunchPeer("litmus", Litmus, blocks, threads, stream, args);
}

const void* LitmusKernel() { return reinterpret_cast<const void*>(&Litmus); }

}  // namespace tandem::peer
