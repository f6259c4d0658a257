// Activations to and from their wire form, where they lie (wire.h defines it, wire_math.h holds the
// arithmetic). One thread an element; on q8 one warp a block of 32, whose lanes agree on the scale.
//
// Moves: 4n bytes of f32 and WireBytes(n) of wire, once each (an addition reads y besides). No
// shared memory, no atomics; sm_80 and later by nothing but habit.
#include <algorithm>

#include "engine/link/cuda/wire_kernels.h"
#include "engine/link/cuda/wire_math.h"

namespace tandem::cuda {
namespace {

using wire_math::Dequantize;
using wire_math::FromBf16;
using wire_math::IsFinite;
using wire_math::Quantize;
using wire_math::ScaleBits;
using wire_math::ToBf16;

constexpr int kThreads = 256;
constexpr uint64_t kBlock = 32;       // elements of a q8 block, lanes of a warp
constexpr uint64_t kBlockBytes = 34;  // as it travels: the scale, then int8
constexpr uint64_t kMostBlocks = 1024;

enum class Then { kStore, kAdd };

template <Then then>
__device__ void Put(float* y, float value) {
  // Kept apart from the multiplication that made `value`.
  *y = then == Then::kAdd ? __fadd_rn(*y, value) : value;
}

__global__ void EncodeBf16(const float* x, uint64_t n, uint16_t* out) {
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x;
  for (uint64_t i = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    out[i] = ToBf16(x[i]);
  }
}

template <Then then>
__global__ void DecodeBf16(const uint16_t* in, uint64_t n, float* y) {
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x;
  for (uint64_t i = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    Put<then>(y + i, FromBf16(in[i]));
  }
}

template <Then then>
__global__ void DecodeF32(const float* in, uint64_t n, float* y) {
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x;
  for (uint64_t i = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    Put<then>(y + i, in[i]);
  }
}

__global__ void RoundBf16(const float* x, uint64_t n, float* y) {
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x;
  for (uint64_t i = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    y[i] = FromBf16(ToBf16(x[i]));
  }
}

// The scale that a warp's lanes share. Lanes beyond the end hold zero. All 32 lanes take part.
__device__ uint16_t WarpScale(float value) {
  const bool finite = AllLanes(IsFinite(value));
  float largest = fabsf(value);
  for (int apart = 16; apart > 0; apart /= 2) {
    largest = fmaxf(largest, ShuffleXor(largest, apart));
  }
  return ScaleBits(finite, largest);
}

// Calls body(block, element, lane's value or zero, whether there is one) for each block of the
// warp.
template <typename Body>
__device__ void ForBlocks(const float* x, uint64_t n, const Body& body) {
  const uint64_t lane = threadIdx.x % kBlock;
  const uint64_t warps = uint64_t{gridDim.x} * (kThreads / kBlock);
  const uint64_t blocks = (n + kBlock - 1) / kBlock;
  // The whole warp goes round together, as the scale wants all of its lanes.
  for (uint64_t b = blockIdx.x * (kThreads / kBlock) + threadIdx.x / kBlock; b < blocks;
       b += warps) {
    const uint64_t i = b * kBlock + lane;
    body(b, i, i < n ? x[i] : 0.0f, i < n);
  }
}

__global__ void EncodeQ8(const float* x, uint64_t n, unsigned char* out) {
  ForBlocks(x, n, [&](uint64_t block, uint64_t i, float value, bool holds) {
    const uint16_t scale = WarpScale(value);
    unsigned char* to = out + block * kBlockBytes;
    if (i % kBlock == 0) *reinterpret_cast<uint16_t*>(to) = scale;
    if (holds) to[2 + i % kBlock] = static_cast<unsigned char>(Quantize(value, scale));
  });
}

__global__ void RoundQ8(const float* x, uint64_t n, float* y) {
  ForBlocks(x, n, [&](uint64_t, uint64_t i, float value, bool holds) {
    const uint16_t scale = WarpScale(value);
    if (holds) y[i] = Dequantize(scale, Quantize(value, scale));
  });
}

template <Then then>
__global__ void DecodeQ8(const unsigned char* in, uint64_t n, float* y) {
  const uint64_t step = uint64_t{gridDim.x} * blockDim.x;
  for (uint64_t i = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += step) {
    const unsigned char* block = in + i / kBlock * kBlockBytes;
    const uint16_t scale = *reinterpret_cast<const uint16_t*>(block);
    const auto q = static_cast<int8_t>(block[2 + i % kBlock]);
    Put<then>(y + i, __fmul_rn(wire_math::ScaleOf(scale), static_cast<float>(q)));
  }
}

dim3 Grid(uint64_t n) {
  return dim3(
      static_cast<unsigned>(std::min<uint64_t>((n + kThreads - 1) / kThreads, kMostBlocks)));
}

template <Then then>
void Decode(WireType wire, const std::byte* in, uint64_t n, float* y, void* stream) {
  const char* what = "link: decode activations";
  switch (wire) {
    case WireType::kF32:
      return Launch(what, DecodeF32<then>, Grid(n), kThreads, 0, stream,
                    reinterpret_cast<const float*>(in), n, y);
    case WireType::kBf16:
      return Launch(what, DecodeBf16<then>, Grid(n), kThreads, 0, stream,
                    reinterpret_cast<const uint16_t*>(in), n, y);
    case WireType::kQ8:
      return Launch(what, DecodeQ8<then>, Grid(n), kThreads, 0, stream,
                    reinterpret_cast<const unsigned char*>(in), n, y);
  }
}

}  // namespace

void LaunchEncode(WireType wire, const float* x, uint64_t n, std::byte* out, void* stream) {
  const char* what = "link: encode activations";
  if (wire == WireType::kQ8) {
    Launch(what, EncodeQ8, Grid(n), kThreads, 0, stream, x, n,
           reinterpret_cast<unsigned char*>(out));
  } else {
    Launch(what, EncodeBf16, Grid(n), kThreads, 0, stream, x, n, reinterpret_cast<uint16_t*>(out));
  }
}

void LaunchDecode(WireType wire, const std::byte* in, uint64_t n, float* y, void* stream) {
  Decode<Then::kStore>(wire, in, n, y, stream);
}

void LaunchDecodeAdd(WireType wire, const std::byte* in, uint64_t n, float* y, void* stream) {
  Decode<Then::kAdd>(wire, in, n, y, stream);
}

void LaunchRound(WireType wire, const float* x, uint64_t n, float* y, void* stream) {
  Launch("link: round activations", wire == WireType::kQ8 ? RoundQ8 : RoundBf16, Grid(n), kThreads,
         0, stream, x, n, y);
}

}  // namespace tandem::cuda
