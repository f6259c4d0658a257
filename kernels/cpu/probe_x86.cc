// Probe loops for x86-64: AMX, AVX-512 and AVX2 forms, the widest that the processor has, and plain
// SSE2 where it has none. Eight or twelve independent chains hide the latency of a fused
// multiply-add (4 cycles, two a cycle) with room to spare.
#include <immintrin.h>

#include "kernels/cpu/amx.h"
#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/probe_loops.h"

namespace tandem {
namespace {

uint64_t ReadSse2(const std::byte* data, size_t bytes) {
  __m128i a = _mm_setzero_si128(), b = a, c = a, d = a;
  for (size_t at = 0; at + 64 <= bytes; at += 64) {
    const auto* p = reinterpret_cast<const __m128i*>(data + at);
    a = _mm_add_epi64(a, _mm_load_si128(p));
    b = _mm_add_epi64(b, _mm_load_si128(p + 1));
    c = _mm_add_epi64(c, _mm_load_si128(p + 2));
    d = _mm_add_epi64(d, _mm_load_si128(p + 3));
  }
  a = _mm_add_epi64(_mm_add_epi64(a, b), _mm_add_epi64(c, d));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(a)) +
         static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_unpackhi_epi64(a, a)));
}

__attribute__((target("avx2"))) uint64_t ReadAvx2(const std::byte* data, size_t bytes) {
  __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
  for (size_t at = 0; at + 128 <= bytes; at += 128) {
    const auto* p = reinterpret_cast<const __m256i*>(data + at);
    a = _mm256_add_epi64(a, _mm256_load_si256(p));
    b = _mm256_add_epi64(b, _mm256_load_si256(p + 1));
    c = _mm256_add_epi64(c, _mm256_load_si256(p + 2));
    d = _mm256_add_epi64(d, _mm256_load_si256(p + 3));
  }
  a = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
  alignas(32) uint64_t words[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), a);
  return words[0] + words[1] + words[2] + words[3];
}

uint64_t FmaSse2(uint64_t iterations) {
  __m128 acc[8];
  for (__m128& a : acc) a = _mm_set1_ps(0.5f);
  const __m128 x = _mm_set1_ps(0.999f), y = _mm_set1_ps(0.25f);
  for (uint64_t i = 0; i < iterations; ++i) {
    for (__m128& a : acc) a = _mm_add_ps(_mm_mul_ps(a, x), y);
  }
  __m128 sum = acc[0];
  for (const __m128& a : acc) sum = _mm_add_ps(sum, a);
  return static_cast<uint64_t>(_mm_cvtss_f32(sum));
}

__attribute__((target("avx2,fma"))) uint64_t FmaAvx2(uint64_t iterations) {
  __m256 acc[12];
  for (__m256& a : acc) a = _mm256_set1_ps(0.5f);
  const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.25f);
  for (uint64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < 12; ++k) acc[k] = _mm256_fmadd_ps(acc[k], x, y);
  }
  __m256 sum = acc[0];
  for (const __m256& a : acc) sum = _mm256_add_ps(sum, a);
  return static_cast<uint64_t>(_mm256_cvtss_f32(sum));
}

__attribute__((target("avx512f"))) uint64_t FmaAvx512(uint64_t iterations) {
  __m512 acc[12];
  for (__m512& a : acc) a = _mm512_set1_ps(0.5f);
  const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.25f);
  for (uint64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < 12; ++k) acc[k] = _mm512_fmadd_ps(acc[k], x, y);
  }
  __m512 sum = acc[0];
  for (const __m512& a : acc) sum = _mm512_add_ps(sum, a);
  return static_cast<uint64_t>(_mm512_cvtss_f32(sum));
}

// 32 int8 products, summed to int16, to int32 and into the accumulator: three instructions. The
// empty asm keeps the compiler from lifting the products, which do not change, out of the loop.
__attribute__((target("avx2"))) uint64_t Int8Avx2(uint64_t iterations) {
  __m256i acc[8];
  for (__m256i& a : acc) a = _mm256_setzero_si256();
  __m256i x = _mm256_set1_epi8(3);
  const __m256i y = _mm256_set1_epi8(5), ones = _mm256_set1_epi16(1);
  for (uint64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      asm volatile("" : "+x"(x));
      acc[k] = _mm256_add_epi32(acc[k], _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), ones));
    }
  }
  __m256i sum = acc[0];
  for (const __m256i& a : acc) sum = _mm256_add_epi32(sum, a);
  return static_cast<uint64_t>(_mm256_extract_epi32(sum, 0));
}

__attribute__((target("avx512f,avx512vnni"))) uint64_t Int8Vnni(uint64_t iterations) {
  __m512i acc[12];
  for (__m512i& a : acc) a = _mm512_setzero_si512();
  const __m512i x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(5);
  for (uint64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < 12; ++k) acc[k] = _mm512_dpbusd_epi32(acc[k], x, y);
  }
  __m512i sum = acc[0];
  for (const __m512i& a : acc) sum = _mm512_add_epi32(sum, a);
  return static_cast<uint64_t>(_mm_cvtsi128_si32(_mm512_castsi512_si128(sum)));
}

__attribute__((target("avx512f,avx512bf16"))) uint64_t Bf16Pairs(uint64_t iterations) {
  __m512 acc[12];
  for (__m512& a : acc) a = _mm512_setzero_ps();
  const __m512bh x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1.5f), _mm512_set1_ps(0.5f));
  for (uint64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < 12; ++k) acc[k] = _mm512_dpbf16_ps(acc[k], x, x);
  }
  __m512 sum = acc[0];
  for (const __m512& a : acc) sum = _mm512_add_ps(sum, a);
  return static_cast<uint64_t>(_mm512_cvtss_f32(sum));
}

constexpr int kTileSums = 4;  // in turn: a product waits for no other

// Tiles as the int8 kernels shape them, a block of 32 columns deep: deeper ones would do more, but
// blocks have scales of their own.
uint64_t Int8Tiles(uint64_t iterations) {
  namespace amx = cpu::amx;
  constexpr int kTokens = kTileSums, kWeights = kTokens + 1;
  amx::TileShapes shapes;
  for (int sums = 0; sums < kTileSums; ++sums) shapes.Set(sums, 16, 64);
  shapes.Set(kTokens, 16, 32);
  shapes.Set(kWeights, 8, 64);
  alignas(64) int8_t bytes[16 * 64];
  for (int8_t& byte : bytes) byte = 3;
  const amx::TileScope tiles(shapes);
  amx::TileLoad<kTokens>(bytes, 64);
  amx::TileLoad<kWeights>(bytes, 64);
  for (uint64_t i = 0; i < iterations; ++i) {
    amx::TileDotInt8<0, kTokens, kWeights>();
    amx::TileDotInt8<1, kTokens, kWeights>();
    amx::TileDotInt8<2, kTokens, kWeights>();
    amx::TileDotInt8<3, kTokens, kWeights>();
  }
  amx::TileStore<0>(bytes, 64);
  return static_cast<uint64_t>(bytes[0]);
}

uint64_t Bf16Tiles(uint64_t iterations) {
  namespace amx = cpu::amx;
  constexpr int kTokens = kTileSums, kWeights = kTokens + 1;
  amx::TileShapes shapes;
  for (int tile = 0; tile <= kWeights; ++tile) shapes.Set(tile, 16, 64);
  alignas(64) uint16_t pairs[16 * 32];
  for (uint16_t& half : pairs) half = 0x3f80;  // one
  const amx::TileScope tiles(shapes);
  amx::TileLoad<kTokens>(pairs, 64);
  amx::TileLoad<kWeights>(pairs, 64);
  for (uint64_t i = 0; i < iterations; ++i) {
    amx::TileDotBf16<0, kTokens, kWeights>();
    amx::TileDotBf16<1, kTokens, kWeights>();
    amx::TileDotBf16<2, kTokens, kWeights>();
    amx::TileDotBf16<3, kTokens, kWeights>();
  }
  amx::TileStore<0>(pairs, 64);
  return pairs[0];
}

}  // namespace

ProbeLoops BestProbeLoops(ArithmeticKind kind) {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f");
  ProbeLoops loops{avx2 ? ReadAvx2 : ReadSse2, FmaSse2, 2.0 * 4 * 8};
  if (kind == ArithmeticKind::kInt8) {
    if (cpu::AmxTier().supported()) {
      loops.arithmetic = Int8Tiles;
      loops.ops_per_iteration = 2.0 * 16 * 16 * 32 * kTileSums;
      return loops;
    }
    if (avx512 && __builtin_cpu_supports("avx512vnni")) {
      loops.arithmetic = Int8Vnni;
      loops.ops_per_iteration = 2.0 * 64 * 12;
      return loops;
    }
    if (avx2) {
      loops.arithmetic = Int8Avx2;
      loops.ops_per_iteration = 2.0 * 32 * 8;
      return loops;
    }
  }
  if (kind == ArithmeticKind::kBf16 && cpu::AmxTier().supported()) {
    loops.arithmetic = Bf16Tiles;
    loops.ops_per_iteration = 2.0 * 16 * 16 * 32 * kTileSums;
  } else if (kind == ArithmeticKind::kBf16 && avx512 && __builtin_cpu_supports("avx512bf16")) {
    loops.arithmetic = Bf16Pairs;
    loops.ops_per_iteration = 2.0 * 32 * 12;
  } else if (avx512) {
    loops.arithmetic = FmaAvx512;
    loops.ops_per_iteration = 2.0 * 16 * 12;
  } else if (avx2) {
    loops.arithmetic = FmaAvx2;
    loops.ops_per_iteration = 2.0 * 8 * 12;
  }
  return loops;
}

}  // namespace tandem
