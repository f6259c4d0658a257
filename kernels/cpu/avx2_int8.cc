// Quantised weights times int8 activations.  y(n, rows) = x(n, cols) * W^T
//
// A panel's group of 32 columns is eight vectors, each four columns of eight rows; the activations'
// dword is broadcast. u8 x s8 pairs are summed in 16 bits, four vectors of up to 5-bit codes or two
// of 6-bit ones (31 * 127 * 8 and 63 * 127 * 4 are below 2^15), then widened. 8-bit: |w| x sign(a,
// w), where a pair is at most 128 * 127 * 2; widened each time. Group sums are exact; then in f32,
// in group order,
//   acc = fma(d * scale, sum, acc), and with a minimum acc = fma(m, scaled_sum, acc).
// Q6_K's sum is scale0 * sum0 + scale1 * sum1, in f32 too, where it is exact (below 2^24).
//
// One token: the panel streams from memory once (160 bytes a group of 8 rows for Q4_1, some 50
// instructions). Up to five: a group is unpacked into registers once for all. More: two panels
// are unpacked into the first-level cache, 16 groups at a time, and met by six tokens at once (four
// for 8-bit), so that a broadcast serves both panels; loads, not multiplications, are the limit
// else.
#include "kernels/cpu/avx2_panel.h"
#include "kernels/int8_block.h"

namespace tandem::cpu::avx2 {
namespace {

constexpr uint64_t kFewTokens = 5;
constexpr uint64_t kDepth = 16;              // groups unpacked at a time; whole blocks
constexpr uint64_t kTokens = 48;             // at most, whose sums are held while groups advance
constexpr uint64_t kChunkBytes = 192 << 10;  // of activations walked per pass over the panels
constexpr uint64_t kPrefetchAhead = 1536;    // bytes

// Vectors of products that a 16-bit cell can sum.
template <DType T>
constexpr int kSpan = Format<T>::k.bits < 6    ? 4
                      : Format<T>::k.bits == 6 ? 2
                                               : 1;

// Four columns of eight rows: pairs summed to 16 bits.
template <DType T>
[[gnu::always_inline]] inline __m256i Multiply(__m256i w, __m256i magnitude, __m256i a) {
  if constexpr (Format<T>::k.bits < 8) return _mm256_maddubs_epi16(w, a);
  return _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(a, w));
}

[[gnu::always_inline]] inline __m256i WidenPairs(__m256i cells) {
  return _mm256_madd_epi16(cells, _mm256_set1_epi16(1));
}

// A group's sums on their way: of all its columns, or of its halves.
template <DType T>
struct Sums {
  __m256i cells;  // 16 bits
  __m256i total[Format<T>::kSixteens ? 2 : 1];

  // Takes product i of 0..7, in order.
  template <int i>
  [[gnu::always_inline]] void Add(__m256i product) {
    constexpr int kPart = Format<T>::kSixteens ? i / 4 : 0;
    constexpr bool kFirst = i < kSpan<T> || (Format<T>::kSixteens && i % 4 < kSpan<T>);
    cells = i % kSpan<T> == 0 ? product : _mm256_add_epi16(cells, product);
    if constexpr ((i + 1) % kSpan<T> == 0) {
      const __m256i wide = WidenPairs(cells);
      total[kPart] = kFirst ? wide : _mm256_add_epi32(total[kPart], wide);
    }
  }
};

// A group's sums into its output.
template <DType T>
[[gnu::always_inline]] inline __m256 Finish(const Sums<T>& sums, __m256 d, __m256 m,
                                            const __m256* halves, const PreparedBlock& a,
                                            __m256 acc) {
  constexpr int kOffset = Format<T>::k.offset;
  const __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(a.scale));
  if constexpr (Format<T>::kSixteens) {
    const __m256i offset0 = _mm256_set1_epi32(kOffset * a.half_sum);
    const __m256i offset1 = _mm256_set1_epi32(kOffset * (a.sum - a.half_sum));
    const __m256 sum0 = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums.total[0], offset0));
    const __m256 sum1 = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums.total[1], offset1));
    const __m256 sum = _mm256_fmadd_ps(halves[0], sum0, _mm256_mul_ps(halves[1], sum1));
    return _mm256_fmadd_ps(scale, sum, acc);
  }
  __m256i sum = sums.total[0];
  if constexpr (kOffset != 0) sum = _mm256_sub_epi32(sum, _mm256_set1_epi32(kOffset * a.sum));
  acc = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(sum), acc);
  if constexpr (Format<T>::k.minimum) {
    acc = _mm256_fmadd_ps(m, _mm256_set1_ps(a.scaled_sum), acc);
  }
  return acc;
}

// The product of a group in registers and a token's 32 activations.
template <DType T, int i = 0>
[[gnu::always_inline]] inline void AddProducts(const __m256i* w, const PreparedBlock& a,
                                               Sums<T>& sums) {
  const __m256i magnitude = Format<T>::k.bits == 8 ? _mm256_abs_epi8(w[i]) : w[i];
  sums.template Add<i>(Multiply<T>(w[i], magnitude, BroadcastDword(a.q + 4 * i)));
  if constexpr (i < 7) AddProducts<T, i + 1>(w, a, sums);
}

// A few tokens over one panel.
template <DType T, int kRows>
void FewTokens(const PanelJob& job, const PanelSpan& span) {
  using F = Format<T>;
  const uint64_t row_groups = job.cols / kInt8Block;
  __m256 acc[kRows];
  for (int t = 0; t < kRows; ++t) acc[t] = _mm256_setzero_ps();
  const std::byte* block = span.at;
  const PreparedBlock* a = job.int8;
  for (uint64_t b = 0; b < row_groups / F::kGroups; ++b, block += F::kBytes) {
    if constexpr (F::kGroups > 1) Prefetch(block + kPrefetchAhead, F::kGroupsAt);
    const Scales<T> scales(block);
    const std::byte* at = block + F::kGroupsAt;
    for (uint64_t g = 0; g < F::kGroups; ++g, at += F::kGroupBytes, ++a) {
      Prefetch(at + kPrefetchAhead, F::kGroups > 1 ? F::kGroupBytes : F::kBytes);
      __m256i w[8];
      UnpackCodes<T>(at, w);
      const __m256* halves = scales.halves[F::kSixteens ? g : 0];
      for (int t = 0; t < kRows; ++t) {
        const PreparedBlock& token = a[static_cast<uint64_t>(t) * row_groups];
        Sums<T> sums;
        AddProducts<T>(w, token, sums);
        acc[t] = Finish<T>(sums, scales.d[g], scales.m[g], halves, token, acc[t]);
      }
    }
  }
  for (int t = 0; t < kRows; ++t) {
    StoreLanes(span, acc[t], span.y + static_cast<uint64_t>(t) * job.y_stride);
  }
}

// Some groups of two neighbouring panels, unpacked.
template <DType T>
struct alignas(32) UnpackedPair {
  __m256i w[kDepth][8][2];
  __m256 d[kDepth][2];
  __m256 m[kDepth][2];
  __m256 halves[Format<T>::kSixteens ? kDepth : 1][2][2];  // [group][panel][half]
};

// Groups [first, first + groups) of `row_groups`, in whole blocks. Fetches what the next call will
// unpack: the panels' next groups, or the first ones of the pair of panels after them,
// `pair_stride` bytes on.
template <DType T>
void UnpackPair(const PanelSpan* spans, uint64_t first, uint64_t groups, uint64_t row_groups,
                uint64_t pair_stride, UnpackedPair<T>& out) {
  using F = Format<T>;
  for (uint64_t p = 0; p < 2; ++p) {
    const std::byte* block = spans[p].at + first / F::kGroups * F::kBytes;
    const std::byte* ahead = first + groups < row_groups ? block + groups / F::kGroups * F::kBytes
                                                         : spans[p].at + pair_stride;
    for (uint64_t b = 0; b < groups; block += F::kBytes, ahead += F::kBytes) {
      Prefetch(ahead, F::kBytes);
      const Scales<T> scales(block);
      for (uint64_t g = 0; g < F::kGroups; ++g, ++b) {
        __m256i w[8];
        UnpackCodes<T>(block + F::kGroupsAt + g * F::kGroupBytes, w);
        for (int i = 0; i < 8; ++i) out.w[b][i][p] = w[i];
        out.d[b][p] = scales.d[g];
        if constexpr (F::k.minimum) out.m[b][p] = scales.m[g];
        if constexpr (F::kSixteens) {
          out.halves[b][p][0] = scales.halves[g][0];
          out.halves[b][p][1] = scales.halves[g][1];
        }
      }
    }
  }
}

// Products i .. 7 of one group of both panels.
template <DType T, int kRows, int i = 0>
[[gnu::always_inline]] inline void AddPairProducts(const __m256i (*w)[2], const PreparedBlock* a,
                                                   uint64_t row_groups, Sums<T> (*sums)[2]) {
  const __m256i w0 = w[i][0];
  const __m256i w1 = w[i][1];
  const __m256i size0 = Format<T>::k.bits == 8 ? _mm256_abs_epi8(w0) : w0;
  const __m256i size1 = Format<T>::k.bits == 8 ? _mm256_abs_epi8(w1) : w1;
  for (int t = 0; t < kRows; ++t) {
    const __m256i dword = BroadcastDword(a[static_cast<uint64_t>(t) * row_groups].q + 4 * i);
    sums[t][0].template Add<i>(Multiply<T>(w0, size0, dword));
    sums[t][1].template Add<i>(Multiply<T>(w1, size1, dword));
  }
  if constexpr (i < 7) AddPairProducts<T, kRows, i + 1>(w, a, row_groups, sums);
}

// acc[token][panel] += `groups` groups.  a: of the first token, row_groups from token to token
template <DType T, int kRows>
[[gnu::always_inline]] inline void AddPair(const UnpackedPair<T>& pair, uint64_t groups,
                                           const PreparedBlock* a, uint64_t row_groups,
                                           __m256 (*acc)[2]) {
  for (uint64_t b = 0; b < groups; ++b, ++a) {
    Sums<T> sums[kRows][2];
    AddPairProducts<T, kRows>(pair.w[b], a, row_groups, sums);
    for (int t = 0; t < kRows; ++t) {
      const PreparedBlock& token = a[static_cast<uint64_t>(t) * row_groups];
      for (int p = 0; p < 2; ++p) {
        acc[t][p] = Finish<T>(sums[t][p], pair.d[b][p], pair.m[b][p],
                              pair.halves[Format<T>::kSixteens ? b : 0][p], token, acc[t][p]);
      }
    }
  }
}

// Tokens [begin, begin + tokens) over two panels; tokens <= kTokens.
template <DType T>
void ManyTokens(const PanelJob& job, const PanelSpan* spans, uint64_t begin, uint64_t tokens) {
  constexpr int kRows = Format<T>::k.bits < 6 ? 6 : 4;
  const uint64_t row_groups = job.cols / kInt8Block;
  UnpackedPair<T> pair;
  __m256 acc[kTokens][2];
  for (uint64_t t = 0; t < tokens; ++t) acc[t][0] = acc[t][1] = _mm256_setzero_ps();
  for (uint64_t first = 0; first < row_groups; first += kDepth) {
    const uint64_t groups = row_groups - first < kDepth ? row_groups - first : kDepth;
    UnpackPair<T>(spans, first, groups, row_groups, 2 * job.panel_stride, pair);
    const PreparedBlock* a = job.int8 + begin * row_groups + first;
    uint64_t t = 0;
    for (; t + kRows <= tokens; t += kRows, a += kRows * row_groups) {
      AddPair<T, kRows>(pair, groups, a, row_groups, acc + t);
    }
    for (; t + 2 <= tokens; t += 2, a += 2 * row_groups) {
      AddPair<T, 2>(pair, groups, a, row_groups, acc + t);
    }
    if (t < tokens) AddPair<T, 1>(pair, groups, a, row_groups, acc + t);
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
  WithQuantizedType(job.type, [&](auto type) { Run<decltype(type)::value>(job); });
}

}  // namespace tandem::cpu::avx2
