// BF16 weights times activations rounded to BF16, on tiles.  y(n, rows) = x(n, cols) * W^T
//
// 32 columns of a panel are a tile as they lie in memory: sixteen rows of a pair of columns of
// sixteen weight rows. Every output is one chain over steps of 32 columns in order: a step adds the
// sum of its even and of its odd products (amx_tiles.h). A last step that is not full ends in
// zeros. Nothing else computes these bits, so one token takes this way too.
//
// Two panels by two tiles of 16 tokens: four products (64 cycles, longer than the 52 that each must
// wait for the one before it) for four tiles loaded (32 cycles at two rows a cycle). Up to 16
// tokens take two products for three tiles, 52 cycles for 2 KiB of weights: memory is the limit.
#include "kernels/cpu/amx.h"
#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/avx512_inline.h"

namespace tandem::cpu::amx {
namespace {

using avx512::PanelWalk;
using avx512::StoreLanes;

constexpr uint64_t kStepCols = 32;
constexpr uint64_t kTileBytes = uint64_t{kTileRows} * kTileRowBytes;
constexpr uint64_t kTokens = 2 * kTileRows;  // side by side
constexpr uint64_t kBand = 4;                // panels walked per change of the tiles' shapes
constexpr uint64_t kChunkBytes = 512 << 10;  // of activations walked per pass over the panels
constexpr uint64_t kPrefetchAhead = 4096;    // bytes

// Tile numbers: sums of token tile a and panel p, tokens, weights.
template <int a, int p>
constexpr int kC = 2 * a + p;
template <int a>
constexpr int kA = 4 + a;
template <int p>
constexpr int kB = 6 + p;

// Up to 32 tokens over two panels or one.
struct Block {
  const PanelJob* job;
  const PanelSpan* spans;
  uint64_t first;
  uint64_t tokens;
  bool fetch;  // the weights come from memory, not from a block before
};

// What is left of the columns after whole steps, with zeros up to a step.
struct LastStep {
  alignas(64) std::byte w[2][kTileBytes];   // by panel
  alignas(64) std::byte x[2 * kTileBytes];  // a row a token

  void Take(const Block& block, uint64_t panels, uint64_t col, uint64_t cols) {
    const __m512i zero = _mm512_setzero_si512();
    for (uint64_t at = 0; at < kTileBytes; at += kTileRowBytes) {
      _mm512_store_si512(w[0] + at, zero);
      _mm512_store_si512(w[1] + at, zero);
      _mm512_store_si512(x + at, zero);
      _mm512_store_si512(x + kTileBytes + at, zero);
    }
    for (uint64_t p = 0; p < panels; ++p) {
      const std::byte* from = block.spans[p].at + col / 2 * kTileRowBytes;
      __builtin_memcpy(w[p], from, cols / 2 * kTileRowBytes);
    }
    const uint64_t stride = PaddedBf16Cols(block.job->cols);
    for (uint64_t t = 0; t < block.tokens; ++t) {
      const uint16_t* from = block.job->bf16 + (block.first + t) * stride + col;
      __builtin_memcpy(x + t * kTileRowBytes, from, cols * sizeof(uint16_t));
    }
  }
};

// One step for kTiles token tiles by kPanels panels.  w: by panel; x: of the first token
template <int kTiles, int kPanels>
[[gnu::always_inline]] inline void Step(const std::byte* const* w, const std::byte* x,
                                        uint64_t x_stride) {
  TileLoad<kB<0>>(w[0], kTileRowBytes);
  TileLoad<kA<0>>(x, x_stride);
  TileDotBf16<kC<0, 0>, kA<0>, kB<0>>();
  if constexpr (kPanels > 1) {
    TileLoad<kB<1>>(w[1], kTileRowBytes);
    TileDotBf16<kC<0, 1>, kA<0>, kB<1>>();
  }
  if constexpr (kTiles > 1) {
    TileLoad<kA<1>>(x + kTileRows * x_stride, x_stride);
    TileDotBf16<kC<1, 0>, kA<1>, kB<0>>();
    if constexpr (kPanels > 1) TileDotBf16<kC<1, 1>, kA<1>, kB<1>>();
  }
}

// Sums of token tile a and panel p into y.
template <int a, int p>
void Store(const Block& block) {
  const PanelSpan& span = block.spans[p];
  const uint64_t first = a * uint64_t{kTileRows};
  const uint64_t stride = block.job->y_stride;
  float* y = span.y + (block.first + first) * stride;
  if (span.lane_end - span.lane_begin == avx512::kLanes) {
    TileStore<kC<a, p>>(y, stride * sizeof(float));
    return;
  }
  alignas(64) float sums[kTileRows * avx512::kLanes];
  TileStore<kC<a, p>>(sums, kTileRowBytes);
  const uint64_t left = block.tokens - first;
  for (uint64_t t = 0; t < left && t < kTileRows; ++t) {
    StoreLanes(span, _mm512_load_ps(sums + t * avx512::kLanes), y + t * stride);
  }
}

template <int kTiles, int kPanels>
void Multiply(const Block& block) {
  const uint64_t stride = PaddedBf16Cols(block.job->cols);
  const auto* x = reinterpret_cast<const std::byte*>(block.job->bf16 + block.first * stride);
  TileZero<kC<0, 0>>();
  TileZero<kC<0, 1>>();
  TileZero<kC<1, 0>>();
  TileZero<kC<1, 1>>();
  uint64_t col = 0;
  for (; col + kStepCols <= stride; col += kStepCols) {
    const std::byte* w[kPanels];
    for (int p = 0; p < kPanels; ++p) {
      w[p] = block.spans[p].at + col / kStepCols * kTileBytes;
      if (block.fetch) Prefetch(w[p] + kPrefetchAhead, kTileBytes);
    }
    Step<kTiles, kPanels>(w, x + col * sizeof(uint16_t), stride * sizeof(uint16_t));
  }
  if (col < stride) {
    LastStep last;
    last.Take(block, kPanels, col, stride - col);
    const std::byte* w[2] = {last.w[0], last.w[1]};
    Step<kTiles, kPanels>(w, last.x, kTileRowBytes);
  }
  Store<0, 0>(block);
  if constexpr (kPanels > 1) Store<0, 1>(block);
  if constexpr (kTiles > 1) Store<1, 0>(block);
  if constexpr (kTiles > 1 && kPanels > 1) Store<1, 1>(block);
}

// A block over `count` panels.
void MultiplyBand(Block block, uint64_t count) {
  const bool two = block.tokens > kTileRows;
  for (uint64_t p = 0; p < count; p += 2, block.spans += 2) {
    if (p + 1 < count) {
      two ? Multiply<2, 2>(block) : Multiply<1, 2>(block);
    } else {
      two ? Multiply<2, 1>(block) : Multiply<1, 1>(block);
    }
  }
}

// For blocks of `tokens`, at most 32. Tiles of tokens that a block lacks keep a shape: a product of
// one token tile leaves those of the other alone.
TileShapes ShapesFor(uint64_t tokens) {
  const uint64_t first = tokens < kTileRows ? tokens : uint64_t{kTileRows};
  const uint64_t second = tokens > kTileRows ? tokens - kTileRows : uint64_t{kTileRows};
  TileShapes shapes;
  for (int p = 0; p < 2; ++p) {
    shapes.Set(kC<0, 0> + p, first, kTileRowBytes);
    shapes.Set(kC<1, 0> + p, second, kTileRowBytes);
    shapes.Set(kB<0> + p, kTileRows, kTileRowBytes);
  }
  shapes.Set(kA<0>, first, kTileRowBytes);
  shapes.Set(kA<1>, second, kTileRowBytes);
  return shapes;
}

}  // namespace

void MatMulBf16(const PanelJob& job) {
  const uint64_t fitting = kChunkBytes / (2 * job.cols + 2) / kTokens * kTokens;
  const uint64_t chunk = fitting < kTokens ? kTokens : fitting;
  const TileShapes whole = ShapesFor(kTokens);
  const TileShapes part = ShapesFor(job.n % kTokens);
  // The shapes in use, so that calls of whole blocks, or of one block, set them once.
  const TileShapes* shapes = job.n < kTokens ? &part : &whole;
  TileScope tiles(*shapes);
  for (uint64_t begin = 0; begin < job.n; begin += chunk) {
    const uint64_t end = job.n - begin < chunk ? job.n : begin + chunk;
    PanelWalk walk(job);
    PanelSpan spans[kBand];
    for (uint64_t count = 1; count > 0;) {
      count = 0;
      while (count < kBand && walk.Next(spans[count])) ++count;
      for (uint64_t t = begin; t < end; t += kTokens) {
        const uint64_t tokens = end - t < kTokens ? end - t : kTokens;
        const TileShapes* wanted = tokens == kTokens ? &whole : &part;
        if (wanted != shapes) tiles.Change(*wanted);
        shapes = wanted;
        MultiplyBand(Block{&job, spans, t, tokens, t == begin}, count);
      }
    }
  }
}

}  // namespace tandem::cpu::amx
