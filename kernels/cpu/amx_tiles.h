// The tile instructions, each under a name, and the shapes of the eight tiles.
//
// Written as assembly rather than the compilers' intrinsics: those of g++ 12 do not say that a tile
// load, or the load of the configuration, reads memory, so that the stores before it may move past
// it or vanish. Here each names memory, and being volatile they stay in order among themselves. No
// compiler keeps anything in a tile, so none is named as overwritten.
//
// Tiles belong to a thread from TileScope's beginning to its end. Internal linkage, as
// avx512_inline.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem::cpu::amx {
namespace {

inline constexpr uint32_t kTileRows = 16;
inline constexpr uint32_t kTileRowBytes = 64;

// What ldtilecfg reads: palette 1 is the one with eight tiles of 16 x 64 bytes.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  // A shape of no rows leaves the tile unusable.
  [[gnu::always_inline]] void Set(int tile, uint64_t tile_rows, uint64_t bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(tile_rows == 0 ? 0 : bytes);
  }
};
static_assert(sizeof(TileShapes) == 64);

// The shapes of this thread's tiles while it lives; all tiles are zero after a change of them.
class TileScope {
 public:
  [[gnu::always_inline]] explicit TileScope(const TileShapes& shapes) { Change(shapes); }
  // Without it every later switch of threads would save and restore 8 KiB.
  [[gnu::always_inline]] ~TileScope() { asm volatile("tilerelease" ::: "memory"); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

  [[gnu::always_inline]] void Change(const TileShapes& shapes) {
    asm volatile("ldtilecfg %0" : : "m"(shapes) : "memory");
  }
};

template <int kTile>
[[gnu::always_inline]] inline void TileZero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

// Row r from at + r * stride bytes.
template <int kTile>
[[gnu::always_inline]] inline void TileLoad(const void* at, uint64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(at), "r"(stride), "i"(kTile) : "memory");
}

template <int kTile>
[[gnu::always_inline]] inline void TileStore(void* at, uint64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(at), "r"(stride), "i"(kTile) : "memory");
}

// C(m, n) += sum over k of A(m, k) * B(k, n), int8 by int8 into int32. A row of B holds four k of
// every n.
template <int kC, int kA, int kB>
[[gnu::always_inline]] inline void TileDotInt8() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
}

// C(m, n) += (sum over even k) + (sum over odd k), BF16 by BF16 in f32: two chains of fused
// multiply-adds from zero, their sum, then its sum with C, each rounded to nearest even. Subnormals
// are zero. A row of B holds two k of every n.
template <int kC, int kA, int kB>
[[gnu::always_inline]] inline void TileDotBf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
}

}  // namespace
}  // namespace tandem::cpu::amx
