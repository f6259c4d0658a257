// Quantised weights times int8 activations, on tiles.  y(n, rows) = x(n, cols) * W^T
//
// A group of 32 columns of a panel, unpacked to signed bytes, is a tile as it lies: eight rows of
// four columns of sixteen weight rows. By a tile of 16 tokens x 32 columns, read from the prepared
// rows in place, it gives 16 tokens x 16 rows of exact sums, which pass through L1 into
//   acc = fma(d * scale, sum, acc), and with a minimum acc = fma(m, scaled_sum, acc)
//   Q6_K: acc = fma(scale, fma(d * scale0, sum0, (d * scale1) * sum1), acc)
// in group order: the operations of avx512_int8.cc, hence its bits. So a few tokens, for which
// unpacking would cost more than it saves, are left to it.
//
// Every group has scales of its own, so nothing is summed in tiles across groups, and half of a
// tile's depth of 64 stays unused: the f32 part is the limit. Per panel, group and 16 tokens (8,192
// multiply-adds), in cycles of a core with two 512-bit pipes, two loads and one store a cycle:
//   tiles 16; pipes 24 (3 operations a token; 32 with a minimum; 40 for Q6_K, whose halves are two
//   products); loads 29 (tokens 16, group 8, sums 16, scales 16, at two a cycle; 37 with a
//   minimum); stores 16.
// So some 29 to 37 cycles, against 88 to 96 of the vector kernel. The sums of the next group are
// asked for before those of this one are folded, so that neither unit waits for the other.
//
// Two panels by up to 16 groups are unpacked into L1 (20 KiB, 30 for Q6_K) and meet all tokens; the
// accumulators of 16 tokens stay in registers meanwhile and go to y between such chunks.
#include "kernels/cpu/amx.h"
#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/avx512_panel.h"
#include "kernels/int8_block.h"

namespace tandem::cpu::amx {
namespace {

using avx512::Format;
using avx512::kLanes;
using avx512::Lanes;
using avx512::PanelWalk;
using avx512::Scales;
using avx512::StoreLanes;
using avx512::UnpackCodes;

constexpr uint64_t kFewTokens = 4;           // at most so many go to the vector kernel
constexpr uint64_t kPanels = 2;              // unpacked together
constexpr uint64_t kDepth = 16;              // groups unpacked together
constexpr uint64_t kChunkBytes = 512 << 10;  // of activations walked per pass over the panels
constexpr uint64_t kGroupTileRows = 8;

// Two sets of tiles in turn, so that a group does not wait for the one before to leave its tiles;
// the last tokens, if fewer than sixteen, have their own.
template <int a, int b, int c>
struct TileSet {
  static constexpr int kA = a;  // tokens
  static constexpr int kB = b;  // weights
  static constexpr int kC = c;  // sums
};
using Even = TileSet<0, 1, 2>;
using Odd = TileSet<3, 4, 5>;
using Last = TileSet<6, 1, 7>;

// A panel's share of a chunk. The halves of a group of Q6_K are two tiles of eight rows each over
// twelve: the first half, zeros, the second half.
template <DType T>
struct alignas(64) Unpacked {
  static constexpr bool kHalves = Format<T>::kSixteens;
  static constexpr uint64_t kRows = kHalves ? 12 : kGroupTileRows;
  int8_t codes[kDepth][kRows * kTileRowBytes];
  float d[kDepth][kLanes];                        // but for Q6_K
  float m[kDepth][kLanes];                        // where the type has a minimum
  float halves[kHalves ? kDepth : 1][2][kLanes];  // Q6_K
};

template <DType T>
[[gnu::always_inline]] inline void UnpackGroup(const std::byte* at, int8_t* codes) {
  __m512i w[8];
  UnpackCodes<T>(at, w);
  const __m512i offset = _mm512_set1_epi8(static_cast<char>(Format<T>::k.offset));
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    if constexpr (Format<T>::k.offset != 0) w[i] = _mm512_sub_epi8(w[i], offset);
    const int row = Unpacked<T>::kHalves && i >= 4 ? i + 4 : i;
    _mm512_store_si512(codes + row * int{kTileRowBytes}, w[i]);
  }
  if constexpr (Unpacked<T>::kHalves) {
    for (int row = 4; row < 8; ++row) {
      _mm512_store_si512(codes + row * int{kTileRowBytes}, _mm512_setzero_si512());
    }
  }
}

template <DType T>
void Unpack(const std::byte* block, uint64_t groups, Unpacked<T>& out) {
  using F = Format<T>;
  for (uint64_t g0 = 0; g0 < groups; g0 += F::kGroups, block += F::kBytes) {
    const Scales<T> scales(block);
    const std::byte* at = block + F::kGroupsAt;
    for (uint64_t g = 0; g < F::kGroups; ++g, at += F::kGroupBytes) {
      UnpackGroup<T>(at, out.codes[g0 + g]);
      if constexpr (!F::kSixteens) _mm512_store_ps(out.d[g0 + g], scales.d[g]);
      if constexpr (F::k.minimum) _mm512_store_ps(out.m[g0 + g], scales.m[g]);
      if constexpr (F::kSixteens) {
        _mm512_store_ps(out.halves[g0 + g][0], scales.halves[g][0]);
        _mm512_store_ps(out.halves[g0 + g][1], scales.halves[g][1]);
      }
    }
  }
}

// Sixteen tokens or fewer by one panel's share of a chunk.
template <DType T>
struct Part {
  const Unpacked<T>* w;
  uint64_t groups;
  const PreparedBlock* a;  // of the first token and group
  uint64_t row_groups;     // from token to token
  uint64_t tokens;
  const std::byte* next;  // weights to fetch meanwhile, group by group; null: none
  PanelSpan span;         // its y is that of the first token
  uint64_t y_stride;
  bool first;  // of the chunks: y holds nothing yet
};

// (tokens, rows) of a group's sums; of its halves for Q6_K.
template <DType T>
struct alignas(64) Sums {
  int32_t of[Unpacked<T>::kHalves ? 2 : 1][kTileRows][kLanes];
};

template <DType T, typename Tiles>
[[gnu::always_inline]] inline void Multiply(const Part<T>& part, uint64_t g, Sums<T>& sums) {
  const int8_t* codes = part.w->codes[g];
  TileLoad<Tiles::kA>(part.a[g].q, part.row_groups * sizeof(PreparedBlock));
  TileLoad<Tiles::kB>(codes, kTileRowBytes);
  TileZero<Tiles::kC>();
  TileDotInt8<Tiles::kC, Tiles::kA, Tiles::kB>();
  TileStore<Tiles::kC>(sums.of[0], kTileRowBytes);
  if constexpr (Unpacked<T>::kHalves) {
    TileLoad<Tiles::kB>(codes + 4 * kTileRowBytes, kTileRowBytes);
    TileZero<Tiles::kC>();
    TileDotInt8<Tiles::kC, Tiles::kA, Tiles::kB>();
    TileStore<Tiles::kC>(sums.of[1], kTileRowBytes);
  }
}

// body(token) for each: unrolled for a whole tile, so that accumulators may live in registers.
template <bool kWhole, typename Body>
[[gnu::always_inline]] inline void ForTokens(uint64_t tokens, Body body) {
  if constexpr (kWhole) {
#pragma GCC unroll 16
    for (uint64_t t = 0; t < kTileRows; ++t) body(t);
  } else {
#pragma GCC unroll 1
    for (uint64_t t = 0; t < tokens; ++t) body(t);
  }
}

// acc[token] += one group's product.
template <DType T, bool kWhole>
[[gnu::always_inline]] inline void Fold(const Part<T>& part, uint64_t g, const Sums<T>& sums,
                                        __m512* acc) {
  constexpr bool kHalves = Unpacked<T>::kHalves;
  const __m512 d = kHalves ? _mm512_setzero_ps() : _mm512_load_ps(part.w->d[g]);
  const __m512 m = Format<T>::k.minimum ? _mm512_load_ps(part.w->m[g]) : _mm512_setzero_ps();
  const auto& halves = part.w->halves[kHalves ? g : 0];
  const __m512 h0 = kHalves ? _mm512_load_ps(halves[0]) : _mm512_setzero_ps();
  const __m512 h1 = kHalves ? _mm512_load_ps(halves[1]) : _mm512_setzero_ps();
  const PreparedBlock* token = part.a + g;
  ForTokens<kWhole>(part.tokens, [&](uint64_t t) __attribute__((always_inline)) {
    const __m512 first = _mm512_cvtepi32_ps(_mm512_load_si512(sums.of[0][t]));
    const __m512 scale = _mm512_set1_ps(token->scale);
    if constexpr (kHalves) {
      const __m512 second = _mm512_cvtepi32_ps(_mm512_load_si512(sums.of[kHalves][t]));
      const __m512 both = _mm512_fmadd_ps(h0, first, _mm512_mul_ps(h1, second));
      acc[t] = _mm512_fmadd_ps(scale, both, acc[t]);
    } else {
      acc[t] = _mm512_fmadd_ps(_mm512_mul_ps(d, scale), first, acc[t]);
    }
    if constexpr (Format<T>::k.minimum) {
      acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(token->scaled_sum), acc[t]);
    }
    token += part.row_groups;
    // One pointer that walks: sixteen, each kept, would not fit the integer registers.
    asm("" : "+r"(token));
  });
}

// Into L2: a later chunk's unpacking reads it from there.
template <DType T>
[[gnu::always_inline]] inline void FetchNext(const Part<T>& part, uint64_t g) {
  if (part.next == nullptr) return;
  constexpr uint64_t kBytes = Format<T>::kBytes / Format<T>::kGroups;
  for (uint64_t line = 0; line < kBytes; line += 64) {
    __builtin_prefetch(part.next + g * kBytes + line, 0, 2);
  }
}

template <DType T, bool kWhole, typename First, typename Second>
void MultiplyPart(const Part<T>& part) {
  const __mmask16 lanes = Lanes(part.span.lane_begin, part.span.lane_end);
  const float* y = part.span.y - part.span.lane_begin;
  __m512 acc[kTileRows];
  ForTokens<kWhole>(part.tokens, [&](uint64_t t) __attribute__((always_inline)) {
    acc[t] = part.first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(lanes, y + t * part.y_stride);
  });
  Sums<T> first, second;
  Multiply<T, First>(part, 0, first);
  for (uint64_t g = 0; g < part.groups; g += 2) {
    const bool pair = g + 1 < part.groups;
    FetchNext(part, g);
    if (pair) Multiply<T, Second>(part, g + 1, second);
    Fold<T, kWhole>(part, g, first, acc);
    if (!pair) break;
    FetchNext(part, g + 1);
    if (g + 2 < part.groups) Multiply<T, First>(part, g + 2, first);
    Fold<T, kWhole>(part, g + 1, second, acc);
  }
  ForTokens<kWhole>(part.tokens, [&](uint64_t t) __attribute__((always_inline)) {
    StoreLanes(part.span, acc[t], part.span.y + t * part.y_stride);
  });
}

template <DType T>
void MultiplyPart(const PanelJob& job, const Part<T>& part) {
  if (part.tokens == kTileRows) return MultiplyPart<T, true, Even, Odd>(part);
  // Fewer tokens than a tile in all have the shape of the first sets.
  if (job.n < kTileRows) return MultiplyPart<T, false, Even, Odd>(part);
  MultiplyPart<T, false, Last, Last>(part);
}

// Tokens [begin, end) by `count` panels.
template <DType T>
void MultiplyPanels(const PanelJob& job, const PanelSpan* spans, uint64_t count, uint64_t begin,
                    uint64_t end) {
  using F = Format<T>;
  const uint64_t row_groups = job.cols / kInt8Block;
  // Chunks of about the same depth, in whole blocks.
  const uint64_t blocks = row_groups / F::kGroups;
  const uint64_t chunks = (row_groups + kDepth - 1) / kDepth;
  const uint64_t chunk_blocks = (blocks + chunks - 1) / chunks;
  Unpacked<T> unpacked[kPanels];
  for (uint64_t b = 0; b < blocks; b += chunk_blocks) {
    const uint64_t now = blocks - b < chunk_blocks ? blocks - b : chunk_blocks;
    const bool last = b + now == blocks;
    for (uint64_t p = 0; p < count; ++p) {
      Unpack<T>(spans[p].at + b * F::kBytes, now * F::kGroups, unpacked[p]);
    }
    for (uint64_t t = begin; t < end; t += kTileRows) {
      for (uint64_t p = 0; p < count; ++p) {
        const std::byte* next = spans[p].at + (b + now) * F::kBytes;
        if (last) next = spans[p].at + count * job.panel_stride;
        Part<T> part{&unpacked[p], now * F::kGroups};
        part.a = job.int8 + t * row_groups + b * F::kGroups;
        part.row_groups = row_groups;
        part.tokens = end - t < kTileRows ? end - t : kTileRows;
        part.next = t == begin ? next : nullptr;
        part.span = spans[p];
        part.span.y += t * job.y_stride;
        part.y_stride = job.y_stride;
        part.first = b == 0;
        MultiplyPart<T>(job, part);
      }
    }
  }
}

TileShapes ShapesFor(uint64_t tokens) {
  const uint64_t most = tokens < kTileRows ? tokens : uint64_t{kTileRows};
  const uint64_t last = tokens < kTileRows ? 0 : tokens % kTileRows;
  TileShapes shapes;
  for (int a : {Even::kA, Odd::kA}) shapes.Set(a, most, kInt8Block);
  for (int b : {Even::kB, Odd::kB}) shapes.Set(b, kGroupTileRows, kTileRowBytes);
  for (int c : {Even::kC, Odd::kC}) shapes.Set(c, most, kTileRowBytes);
  shapes.Set(Last::kA, last, kInt8Block);
  shapes.Set(Last::kC, last, kTileRowBytes);
  return shapes;
}

template <DType T>
void Run(const PanelJob& job) {
  const TileScope tiles(ShapesFor(job.n));
  const uint64_t row_bytes = job.cols / kInt8Block * sizeof(PreparedBlock) + 1;
  // What is unpacked must serve more than a tile or two of tokens.
  const uint64_t fitting = kChunkBytes / row_bytes / kTileRows * kTileRows;
  const uint64_t chunk = fitting < 4 * kTileRows ? 4 * kTileRows : fitting;
  for (uint64_t begin = 0; begin < job.n; begin += chunk) {
    const uint64_t end = job.n - begin < chunk ? job.n : begin + chunk;
    PanelWalk walk(job);
    PanelSpan spans[kPanels];
    while (walk.Next(spans[0])) {
      const uint64_t count = walk.Next(spans[1]) ? 2 : 1;
      MultiplyPanels<T>(job, spans, count, begin, end);
    }
  }
}

}  // namespace

void MatMulInt8(const PanelJob& job) {
  if (job.n <= kFewTokens) return avx512::MatMulInt8(job);
  WithQuantizedType(job.type, [&](auto type) { Run<decltype(type)::value>(job); });
}

}  // namespace tandem::cpu::amx
