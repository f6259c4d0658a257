// Quantised weights times int8 activations.  y(n, rows) = x(n, cols) * W^T
//
// A panel's block of 32 columns is eight vectors, each four columns of eight rows; the activations'
// dword is broadcast. 4-bit: u8 x s8 pairs stay below 15*127*2, and eight of them below 2^15, so a
// block is summed in 16 bits and widened once. 8-bit: |w| x sign(a, w), where a pair is at most
// 128*127*2 < 2^15; widened each time. Block sums are exact; then in f32, in block order,
//   acc = fma(d * scale, sum, acc), and for Q4_1 acc = fma(m, scaled_sum, acc).
//
// One token: the panel streams from memory once (160 bytes a block of 8 rows for Q4_1, some 50
// instructions). Up to five: a block is unpacked into registers once for all. More: two panels
// are unpacked into the first-level cache, 16 blocks at a time, and met by six tokens at once (four
// for 8-bit), so that a broadcast serves both panels; loads, not multiplications, are the limit
// else.
#include "kernels/cpu/avx2_inline.h"
#include "kernels/int8_block.h"

namespace tandem::cpu::avx2 {
namespace {

constexpr uint64_t kFewTokens = 5;
constexpr uint64_t kDepth = 16;              // blocks unpacked at a time
constexpr uint64_t kTokens = 48;             // at most, whose sums are held while blocks advance
constexpr uint64_t kChunkBytes = 192 << 10;  // of activations walked per pass over the panels
constexpr uint64_t kPrefetchAhead = 1536;    // bytes

template <DType T>
struct Format {
  static constexpr bool kWide = T == DType::kQ8_0;
  static constexpr bool kMinimum = T == DType::kQ4_1;
  static constexpr uint64_t kFields = kWide ? 256 : 128;  // offset of the scales
  static constexpr uint64_t kBytes = kFields + (kMinimum ? 32 : 16);
};

[[gnu::always_inline]] inline __m256i LoadBytes(const void* at) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}

// The cache lines of a block, which may lie past the end of the matrix: a prefetch does not fault.
template <DType T>
[[gnu::always_inline]] inline void Prefetch(const std::byte* block) {
  for (uint64_t line = 0; line < Format<T>::kBytes; line += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(block) + line, _MM_HINT_T0);
  }
}

// Four columns of eight rows: pairs summed to 16 bits (4-bit types), or fours to 32 bits.
template <DType T>
[[gnu::always_inline]] inline __m256i Multiply(__m256i w, __m256i magnitude, __m256i a) {
  if constexpr (!Format<T>::kWide) return _mm256_maddubs_epi16(w, a);
  const __m256i pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(a, w));
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

template <DType T>
[[gnu::always_inline]] inline __m256i Sum(__m256i a, __m256i b) {
  return Format<T>::kWide ? _mm256_add_epi32(a, b) : _mm256_add_epi16(a, b);
}

// A block's sum into its output.
template <DType T>
[[gnu::always_inline]] inline __m256 Finish(__m256i sum, __m256 d, __m256 m, const PreparedBlock& a,
                                            __m256 acc) {
  if constexpr (!Format<T>::kWide) sum = _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
  if constexpr (T == DType::kQ4_0) sum = _mm256_sub_epi32(sum, _mm256_set1_epi32(8 * a.sum));
  const __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(a.scale));
  acc = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sum), acc);
  if constexpr (Format<T>::kMinimum) {
    acc = _mm256_fmadd_ps(m, _mm256_set1_ps(a.scaled_sum), acc);
  }
  return acc;
}

// The eight vectors of a block: nibbles as bytes, or signed bytes as stored.
template <DType T>
[[gnu::always_inline]] inline void Unpack(const std::byte* at, __m256i* w) {
  if constexpr (Format<T>::kWide) {
    for (int i = 0; i < 8; ++i) w[i] = LoadBytes(at + 32 * i);
  } else {
    const __m256i nibble = _mm256_set1_epi8(15);
    for (int i = 0; i < 4; ++i) {
      const __m256i both = LoadBytes(at + 32 * i);
      w[i] = _mm256_and_si256(both, nibble);
      w[i + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
    }
  }
}

// One block of a panel in registers.
template <DType T>
struct Weights {
  __m256i w[8];
  __m256 d;
  __m256 m;

  [[gnu::always_inline]] explicit Weights(const std::byte* at) {
    Unpack<T>(at, w);
    d = LoadHalves(at + Format<T>::kFields);
    if constexpr (Format<T>::kMinimum) m = LoadHalves(at + Format<T>::kFields + 16);
  }
  [[gnu::always_inline]] __m256i Product(int i, const PreparedBlock& a) const {
    return Multiply<T>(w[i], _mm256_abs_epi8(w[i]), BroadcastDword(a.q + 4 * i));
  }
  [[gnu::always_inline]] __m256 Add(const PreparedBlock& a, __m256 acc) const {
    __m256i even = Product(0, a);
    __m256i odd = Product(1, a);
    for (int i = 2; i < 8; i += 2) {
      even = Sum<T>(even, Product(i, a));
      odd = Sum<T>(odd, Product(i + 1, a));
    }
    return Finish<T>(Sum<T>(even, odd), d, m, a, acc);
  }
};

// A few tokens over one panel.
template <DType T, int kRows>
void FewTokens(const PanelJob& job, const PanelSpan& span) {
  const uint64_t blocks = job.cols / kInt8Block;
  __m256 acc[kRows];
  for (int t = 0; t < kRows; ++t) acc[t] = _mm256_setzero_ps();
  const std::byte* at = span.at;
  for (uint64_t b = 0; b < blocks; ++b, at += Format<T>::kBytes) {
    Prefetch<T>(at + kPrefetchAhead);
    const Weights<T> weights(at);
    for (int t = 0; t < kRows; ++t) {
      acc[t] = weights.Add(job.int8[static_cast<uint64_t>(t) * blocks + b], acc[t]);
    }
  }
  for (int t = 0; t < kRows; ++t) {
    StoreLanes(span, acc[t], span.y + static_cast<uint64_t>(t) * job.y_stride);
  }
}

// Some blocks of two neighbouring panels, unpacked.
struct alignas(32) UnpackedPair {
  __m256i w[kDepth][8][2];
  __m256 d[kDepth][2];
  __m256 m[kDepth][2];
};

// Blocks [first, first + blocks) of `row_blocks`. Fetches what the next call will unpack: the
// panels' next blocks, or the first ones of the pair of panels after them, `pair_stride` bytes on.
template <DType T>
void UnpackPair(const PanelSpan* spans, uint64_t first, uint64_t blocks, uint64_t row_blocks,
                uint64_t pair_stride, UnpackedPair& out) {
  constexpr uint64_t kBytes = Format<T>::kBytes;
  for (uint64_t p = 0; p < 2; ++p) {
    const std::byte* at = spans[p].at + first * kBytes;
    const std::byte* ahead =
        first + blocks < row_blocks ? at + blocks * kBytes : spans[p].at + pair_stride;
    for (uint64_t b = 0; b < blocks; ++b, at += kBytes, ahead += kBytes) {
      Prefetch<T>(ahead);
      const Weights<T> weights(at);
      for (int i = 0; i < 8; ++i) out.w[b][i][p] = weights.w[i];
      out.d[b][p] = weights.d;
      if constexpr (Format<T>::kMinimum) out.m[b][p] = weights.m;
    }
  }
}

// acc[token][panel] += `blocks` blocks.  a: of the first token, row_blocks from token to token
template <DType T, int kRows>
[[gnu::always_inline]] inline void AddPair(const UnpackedPair& pair, uint64_t blocks,
                                           const PreparedBlock* a, uint64_t row_blocks,
                                           __m256 (*acc)[2]) {
  for (uint64_t b = 0; b < blocks; ++b, ++a) {
    __m256i sums[kRows][2];
    for (int i = 0; i < 8; ++i) {
      const __m256i w0 = pair.w[b][i][0];
      const __m256i w1 = pair.w[b][i][1];
      const __m256i size0 = _mm256_abs_epi8(w0);
      const __m256i size1 = _mm256_abs_epi8(w1);
      for (int t = 0; t < kRows; ++t) {
        const __m256i dword = BroadcastDword(a[static_cast<uint64_t>(t) * row_blocks].q + 4 * i);
        const __m256i product0 = Multiply<T>(w0, size0, dword);
        const __m256i product1 = Multiply<T>(w1, size1, dword);
        sums[t][0] = i == 0 ? product0 : Sum<T>(sums[t][0], product0);
        sums[t][1] = i == 0 ? product1 : Sum<T>(sums[t][1], product1);
      }
    }
    for (int t = 0; t < kRows; ++t) {
      const PreparedBlock& block = a[static_cast<uint64_t>(t) * row_blocks];
      for (int p = 0; p < 2; ++p) {
        acc[t][p] = Finish<T>(sums[t][p], pair.d[b][p], pair.m[b][p], block, acc[t][p]);
      }
    }
  }
}

// Tokens [begin, begin + tokens) over two panels; tokens <= kTokens.
template <DType T>
void ManyTokens(const PanelJob& job, const PanelSpan* spans, uint64_t begin, uint64_t tokens) {
  constexpr int kRows = Format<T>::kWide ? 4 : 6;
  const uint64_t row_blocks = job.cols / kInt8Block;
  UnpackedPair pair;
  __m256 acc[kTokens][2];
  for (uint64_t t = 0; t < tokens; ++t) acc[t][0] = acc[t][1] = _mm256_setzero_ps();
  for (uint64_t first = 0; first < row_blocks; first += kDepth) {
    const uint64_t blocks = row_blocks - first < kDepth ? row_blocks - first : kDepth;
    UnpackPair<T>(spans, first, blocks, row_blocks, 2 * job.panel_stride, pair);
    const PreparedBlock* a = job.int8 + begin * row_blocks + first;
    uint64_t t = 0;
    for (; t + kRows <= tokens; t += kRows, a += kRows * row_blocks) {
      AddPair<T, kRows>(pair, blocks, a, row_blocks, acc + t);
    }
    for (; t + 2 <= tokens; t += 2, a += 2 * row_blocks) {
      AddPair<T, 2>(pair, blocks, a, row_blocks, acc + t);
    }
    if (t < tokens) AddPair<T, 1>(pair, blocks, a, row_blocks, acc + t);
  }
  for (uint64_t t = 0; t < tokens; ++t) {
    for (int p = 0; p < 2; ++p) {
      StoreLanes(spans[p], acc[t][p], spans[p].y + (begin + t) * job.y_stride);
    }
  }
}

// Up to kFewTokens tokens over every panel that is left in the walk.
template <DType T>
void RunFew(const PanelJob& job, PanelWalk& walk, PanelSpan span) {
  do {
    switch (job.n) {
      case 1:
        FewTokens<T, 1>(job, span);
        break;
      case 2:
        FewTokens<T, 2>(job, span);
        break;
      case 3:
        FewTokens<T, 3>(job, span);
        break;
      case 4:
        FewTokens<T, 4>(job, span);
        break;
      default:
        FewTokens<T, kFewTokens>(job, span);
    }
  } while (walk.Next(span));
}

// A job of tokens [begin, begin + n) of another.
PanelJob Part(const PanelJob& job, uint64_t begin, uint64_t n) {
  PanelJob part = job;
  part.n = n;
  part.int8 += begin * (job.cols / kInt8Block);
  part.y += begin * job.y_stride;
  return part;
}

template <DType T>
void Run(const PanelJob& job) {
  PanelSpan spans[2];
  if (job.n <= kFewTokens) {
    PanelWalk walk(job);
    if (walk.Next(spans[0])) RunFew<T>(job, walk, spans[0]);
    return;
  }
  const uint64_t row_bytes = job.cols / kInt8Block * sizeof(PreparedBlock) + 1;
  uint64_t chunk = kChunkBytes / row_bytes / 12 * 12;
  chunk = chunk < 12 ? 12 : chunk > kTokens ? kTokens : chunk;
  for (uint64_t begin = 0; begin < job.n; begin += chunk) {
    const uint64_t tokens = job.n - begin < chunk ? job.n - begin : chunk;
    PanelWalk walk(job);
    while (walk.Next(spans[0])) {
      if (walk.Next(spans[1])) {
        ManyTokens<T>(job, spans, begin, tokens);
        continue;
      }
      // A last panel without a partner, a few tokens at a time.
      for (uint64_t t = begin; t < begin + tokens; t += kFewTokens) {
        const uint64_t left = begin + tokens - t;
        PanelJob few = Part(job, t, left < kFewTokens ? left : kFewTokens);
        PanelSpan span = spans[0];
        span.y += t * job.y_stride;
        RunFew<T>(few, walk, span);
      }
    }
  }
}

}  // namespace

void MatMulInt8(const PanelJob& job) {
  switch (job.type) {
    case DType::kQ4_0:
      return Run<DType::kQ4_0>(job);
    case DType::kQ4_1:
      return Run<DType::kQ4_1>(job);
    case DType::kQ8_0:
      return Run<DType::kQ8_0>(job);
    default:
      __builtin_trap();  // cpu_ops.cc sends quantised types only
  }
}

}  // namespace tandem::cpu::avx2
