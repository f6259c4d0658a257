// What the kernels of peer links are made of: a value in its wire form, a slot's words, waiting
// with a bound, and the clock of a shaped link. See peer_layout.h for what lies where, and
// p2p_kernels.cu and p2p_rows.cu for the kernels and why their slots may be used again.
//
// Compiled by nvcc, and as plain C++ by the emulation.
#pragma once

#include <peer_platform.h>

#include <type_traits>

#include "engine/link/cuda/wire_math.h"
#include "engine/link/peer_layout.h"
#include "engine/plan/plan.h"

namespace tandem::peer {

using cuda::Line;

struct alignas(16) Quad {
  float x[kQuad];
};

// Elements [first, first + 4) of x (n); zeros beyond the end.
__device__ __forceinline__ Quad LoadQuad(const float* x, uint64_t first, uint64_t n) {
  Quad quad = {};
  if (first + kQuad <= n && reinterpret_cast<uintptr_t>(x + first) % sizeof(Quad) == 0) {
    return *reinterpret_cast<const Quad*>(x + first);
  }
  for (uint32_t i = 0; i < kQuad; ++i) {
    if (first + i < n) quad.x[i] = x[first + i];
  }
  return quad;
}
__device__ __forceinline__ void StoreQuad(float* x, uint64_t first, uint64_t n, const Quad& quad) {
  if (first + kQuad <= n && reinterpret_cast<uintptr_t>(x + first) % sizeof(Quad) == 0) {
    *reinterpret_cast<Quad*>(x + first) = quad;
    return;
  }
  for (uint32_t i = 0; i < kQuad; ++i) {
    if (first + i < n) x[first + i] = quad.x[i];
  }
}

// Four elements in their wire form: f32, the bits of each; bf16, two to a word; q8, four to the
// first word and the scale of their block in the second.
struct Packed {
  uint32_t word[kQuad];
};

// The scale of the q8 block that eight neighbouring threads hold. All lanes of the warp take part.
__device__ __forceinline__ uint16_t BlockScale(const Quad& quad) {
  float largest = 0.0f;
  float bad = 0.0f;
  for (uint32_t i = 0; i < kQuad; ++i) {
    largest = fmaxf(largest, fabsf(quad.x[i]));
    if (!wire_math::IsFinite(quad.x[i])) bad = 1.0f;
  }
  for (int apart = 4; apart > 0; apart /= 2) {
    largest = fmaxf(largest, cuda::ShuffleXor(largest, apart));
    bad = fmaxf(bad, cuda::ShuffleXor(bad, apart));
  }
  return wire_math::ScaleBits(bad == 0.0f, largest);
}

template <WireType wire>
__device__ __forceinline__ Packed Pack(const Quad& quad) {
  Packed packed = {};
  if constexpr (wire == WireType::kF32) {
    for (uint32_t i = 0; i < kQuad; ++i) packed.word[i] = wire_math::BitsOf(quad.x[i]);
  } else if constexpr (wire == WireType::kBf16) {
    for (uint32_t i = 0; i < kQuad; ++i) {
      packed.word[i / 2] |= uint32_t{wire_math::ToBf16(quad.x[i])} << (16 * (i % 2));
    }
  } else {
    const uint16_t scale = BlockScale(quad);
    packed.word[1] = scale;
    for (uint32_t i = 0; i < kQuad; ++i) {
      const auto q = static_cast<uint8_t>(wire_math::Quantize(quad.x[i], scale));
      packed.word[0] |= uint32_t{q} << (8 * i);
    }
  }
  return packed;
}

template <WireType wire>
__device__ __forceinline__ Quad Unpack(const Packed& packed) {
  Quad quad = {};
  for (uint32_t i = 0; i < kQuad; ++i) {
    if constexpr (wire == WireType::kF32) {
      quad.x[i] = wire_math::FloatOf(packed.word[i]);
    } else if constexpr (wire == WireType::kBf16) {
      quad.x[i] = wire_math::FromBf16(static_cast<uint16_t>(packed.word[i / 2] >> (16 * (i % 2))));
    } else {
      quad.x[i] = wire_math::Dequantize(static_cast<uint16_t>(packed.word[1]),
                                        static_cast<int8_t>(packed.word[0] >> (8 * i)));
    }
  }
  return quad;
}

// sum = value for the first rank, sum + value for the others.
__device__ __forceinline__ void AddInOrder(Quad& sum, const Quad& value, bool is_first) {
  for (uint32_t i = 0; i < kQuad; ++i) {
    sum.x[i] = is_first ? value.x[i] : sum.x[i] + value.x[i];
  }
}

__device__ __forceinline__ uint64_t Flagged(uint32_t word, uint32_t generation) {
  return uint64_t{generation} << 32 | word;
}
__device__ __forceinline__ bool HasCome(const Line& line, uint32_t generation) {
  return static_cast<uint32_t>(line.low >> 32) == generation &&
         static_cast<uint32_t>(line.high >> 32) == generation;
}

// Calls ready() until it says yes. False where it does not within the bound, which is then told to
// the host, or where another thread of this rank has given up. `peer` is who is waited for.
template <typename Ready>
__device__ __forceinline__ bool SpinUntil(const Bound& bound, uint32_t peer, const Ready& ready) {
  if (ready()) return true;
  const uint64_t start = cuda::NowNanos();
  for (uint32_t looks = 1;; ++looks) {
    cuda::Pause();
    if (ready()) return true;
    if (looks % 64 != 0) continue;
    if (cuda::LoadWord(bound.abort) != 0) return false;
    if (cuda::NowNanos() - start <= bound.nanos) continue;
    // No order between the two is needed: the host reads when the kernel is over.
    cuda::StoreLong(bound.failure, FailureWord(bound.op, peer));
    cuda::StoreWord(bound.abort, 1);
    return false;
  }
}

// A rank whose kernel has given up is out of step with the others for good: nothing that comes
// after in its queue waits again, until the host has cleared everything.
__device__ __forceinline__ bool HasGivenUp(const Bound& bound) {
  return cuda::LoadWord(bound.abort) != 0;
}

// A channel's slot for this generation.
__device__ __forceinline__ uint64_t SlotAt(Way way, uint32_t channel, uint32_t generation) {
  return (uint64_t{channel} * 2 + (generation & 1)) * SlotBytes(way);
}
// That of the block's own channel, where it has one.
__device__ __forceinline__ std::byte* SlotOf(std::byte* slots, Way way, uint32_t generation) {
  return slots + SlotAt(way, blockIdx.x, generation);
}
__device__ __forceinline__ const std::byte* SlotOf(const std::byte* slots, Way way,
                                                   uint32_t generation) {
  return slots + SlotAt(way, blockIdx.x, generation);
}

// --- words ---

// Stores quad `lane` of the chunk in its lines of the slot, or, where there is none and the
// generation asks for it, the generation alone.
template <WireType wire>
__device__ __forceinline__ void StoreWords(std::byte* slot, uint32_t lane, const Packed& packed,
                                           uint32_t generation, bool holds) {
  constexpr uint32_t kUsed = wire == WireType::kF32 ? 2 : 1;
  const bool sweeps = (generation & kSweepMask) < 2;
  std::byte* lines = slot + kDataAt;
  for (uint32_t i = 0; i < kLinesPerQuad; ++i) {
    const bool fills = holds && i < kUsed;
    if (!fills && !sweeps) continue;
    // Line i of all quads lie together, so that a warp stores whole sectors.
    std::byte* to = lines + (uint64_t{i} * kThreads + lane) * kLineBytes;
    cuda::StoreLine(to, Line{Flagged(fills ? packed.word[2 * i] : 0, generation),
                             Flagged(fills ? packed.word[2 * i + 1] : 0, generation)});
  }
}

// The same quad of the other end.
template <WireType wire>
__device__ __forceinline__ bool AwaitWords(const std::byte* slot, uint32_t lane,
                                           uint32_t generation, const Bound& bound, uint32_t peer,
                                           Packed& packed) {
  constexpr uint32_t kUsed = wire == WireType::kF32 ? 2 : 1;
  const std::byte* lines = slot + kDataAt;
  return SpinUntil(bound, peer, [&] {
    bool come = true;
    for (uint32_t i = 0; i < kUsed; ++i) {
      const Line line = cuda::LoadLine(lines + (uint64_t{i} * kThreads + lane) * kLineBytes);
      come = come && HasCome(line, generation);
      packed.word[2 * i] = static_cast<uint32_t>(line.low);
      packed.word[2 * i + 1] = static_cast<uint32_t>(line.high);
    }
    return come;
  });
}

// --- blocks ---

template <WireType wire>
__device__ __forceinline__ void StoreBlock(std::byte* slot, uint32_t quad, const Packed& packed) {
  std::byte* data = slot + kDataAt;
  if constexpr (wire == WireType::kF32) {
    struct alignas(16) Whole {
      uint32_t word[4];
    };
    cuda::StorePayload(data + quad * 16,
                       Whole{{packed.word[0], packed.word[1], packed.word[2], packed.word[3]}});
  } else if constexpr (wire == WireType::kBf16) {
    cuda::StorePayload(data + quad * 8, uint64_t{packed.word[1]} << 32 | packed.word[0]);
  } else {
    cuda::StorePayload(data + quad * 4, packed.word[0]);
    if (quad % 8 == 0) {
      cuda::StorePayload(data + kBlocksElems + quad / 8 * 2, static_cast<uint16_t>(packed.word[1]));
    }
  }
}

template <WireType wire>
__device__ __forceinline__ Packed LoadBlock(const std::byte* slot, uint32_t quad) {
  const std::byte* data = slot + kDataAt;
  if constexpr (wire == WireType::kF32) {
    struct alignas(16) Whole {
      uint32_t word[4];
    };
    const auto whole = cuda::LoadPayload<Whole>(data + quad * 16);
    return Packed{{whole.word[0], whole.word[1], whole.word[2], whole.word[3]}};
  } else if constexpr (wire == WireType::kBf16) {
    const auto both = cuda::LoadPayload<uint64_t>(data + quad * 8);
    return Packed{{static_cast<uint32_t>(both), static_cast<uint32_t>(both >> 32), 0, 0}};
  } else {
    return Packed{{cuda::LoadPayload<uint32_t>(data + quad * 4),
                   cuda::LoadPayload<uint16_t>(data + kBlocksElems + quad / 8 * 2), 0, 0}};
  }
}

__device__ __forceinline__ uint32_t* FlagOf(std::byte* slot) {
  return reinterpret_cast<uint32_t*>(slot + kFlagAt);
}
__device__ __forceinline__ bool AwaitFlag(const std::byte* slot, uint32_t generation,
                                          const Bound& bound, uint32_t peer) {
  const auto* flag = reinterpret_cast<const uint32_t*>(slot + kFlagAt);
  return SpinUntil(bound, peer, [&] { return cuda::LoadWord(flag) == generation; });
}

// --- links that are played ---

// The moment when a message was sent, in words of its own beside the first chunk of a channel.
__device__ __forceinline__ void StoreStamp(std::byte* slot, uint32_t generation, uint64_t nanos) {
  cuda::StoreLine(slot + kStampAt, Line{Flagged(static_cast<uint32_t>(nanos), generation),
                                        Flagged(static_cast<uint32_t>(nanos >> 32), generation)});
}
__device__ __forceinline__ bool AwaitStamp(const std::byte* slot, uint32_t generation,
                                           const Bound& bound, uint32_t peer, uint64_t& nanos) {
  return SpinUntil(bound, peer, [&] {
    const Line line = cuda::LoadLine(slot + kStampAt);
    nanos = (line.low & 0xffffffffu) | line.high << 32;
    return HasCome(line, generation);
  });
}
__device__ __forceinline__ void WaitUntil(uint64_t nanos) {
  // As differences, for the clock may begin anywhere.
  while (static_cast<int64_t>(cuda::NowNanos() - nanos) < 0) cuda::Pause();
}

// Of all-reduces: threads that speak for the block to one peer each say with the chunk when its
// message was sent, and with the last chunk wait until the peer's would have come. Before the
// generation ends, for the slot with the stamp is then given back.
__device__ __forceinline__ bool SpeaksToPeer(const ReduceArgs& args) {
  return args.shaped_nanos != 0 && threadIdx.x < args.ranks && threadIdx.x != args.rank;
}
__device__ __forceinline__ void StampReduce(const ReduceArgs& args, Way way, uint32_t channel,
                                            uint32_t generation, uint64_t sent) {
  if (!SpeaksToPeer(args)) return;
  StoreStamp(args.to[threadIdx.x] + SlotAt(way, channel, generation), generation, sent);
}
__device__ __forceinline__ bool PlayLink(const ReduceArgs& args, Way way, uint32_t channel,
                                         uint32_t generation, bool is_last) {
  if (!is_last || !SpeaksToPeer(args)) return true;
  const uint32_t peer = threadIdx.x;
  uint64_t sent = 0;
  if (!AwaitStamp(args.from[peer] + SlotAt(way, channel, generation), generation, args.bound, peer,
                  sent)) {
    return false;
  }
  WaitUntil(sent + args.shaped_nanos);
  return true;
}

// Calls go(wire) with the wire type as a constant.
template <typename Go>
void ForWire(WireType wire, const Go& go) {
  switch (wire) {
    case WireType::kF32:
      go(std::integral_constant<WireType, WireType::kF32>());
      return;
    case WireType::kBf16:
      go(std::integral_constant<WireType, WireType::kBf16>());
      return;
    case WireType::kQ8:
      go(std::integral_constant<WireType, WireType::kQ8>());
      return;
  }
}

}  // namespace tandem::peer
