// Quantised weights times int8 activations.  y(n, rows) = x(n, cols) * W^T
//
// A panel's group of 32 columns is eight vectors, each four columns of sixteen rows; the
// activations' dword is broadcast by the multiplication itself (vpdpbusd, unsigned weights by
// signed activations, exact in 32 bits). Signed weights enter as w + offset, and each sum starts at
// -offset * sum(q). Then in f32, in group order,
//   acc = fma(d * scale, sum, acc), and with a minimum acc = fma(m, scaled_sum, acc).
// Q6_K has two sums a group,
//   acc = fma(scale, fma(d * scale0, sum0, (d * scale1) * sum1), acc).
//
// A group is unpacked into eight registers once for up to eight tokens, whose sums and accumulators
// take sixteen more: nothing but the panel and the activations is read, nothing but y written. For
// one token a panel streams from memory (320 bytes a group for Q4_1, some 40 instructions). For
// many, 512 multiply-adds take 8 cycles of the two multiplying pipes, and 2 or 3 more for the f32
// part; unpacking runs on the other pipes.
//
// Q6_K has most to unpack, and two sums a token leave no registers for a group beside eight of
// them. So for many tokens a block of 256 columns is unpacked into L1 once for all of them, whose
// accumulators wait in memory from block to block: the same sums in the same order.
#include "kernels/cpu/avx512_panel.h"
#include "kernels/int8_block.h"

namespace tandem::cpu::avx512 {
namespace {

constexpr int kTokens = 8;                   // side by side
constexpr uint64_t kChunkBytes = 512 << 10;  // of activations walked per pass over the panels
constexpr uint64_t kPrefetchAhead = 2048;    // bytes
constexpr uint64_t kOpenFrom = 16;           // tokens for which blocks of Q6_K are unpacked once

// A panel is read from its first byte to its last, which the processor's own prefetcher follows
// faster than instructions can ask, each of which takes a miss of the first cache. Only where
// unpacking takes longest does the prefetcher fall behind.
template <DType T>
constexpr bool kFetchesAhead = Format<T>::k.bits == 5;

// What is added to weights to make them unsigned.
template <DType T>
constexpr int kOffset = Format<T>::k.bits == 8 ? 128 : Format<T>::k.offset;

// A group's sums: of all its columns, or (Q6_K) of its halves.
template <DType T>
struct Sums {
  static constexpr int kParts = Format<T>::kSixteens ? 2 : 1;
  __m512i part[kParts];

  [[gnu::always_inline]] void Start(const PreparedBlock& a) {
    if constexpr (kOffset<T> == 0) {
      part[0] = _mm512_setzero_si512();
    } else if constexpr (Format<T>::kSixteens) {
      part[0] = _mm512_set1_epi32(-kOffset<T> * a.half_sum);
      part[1] = _mm512_set1_epi32(-kOffset<T> * (a.sum - a.half_sum));
    } else {
      part[0] = _mm512_set1_epi32(-kOffset<T> * a.sum);
    }
  }
  // Takes the product of vector i of 0..7.
  [[gnu::always_inline]] void Add(int i, __m512i w, const PreparedBlock& a) {
    __m512i& to = part[i * kParts / 8];
    to = _mm512_dpbusd_epi32(to, w, BroadcastDword(a.q + 4 * i));
  }
  // The sum of acc and of this group of a token.
  [[gnu::always_inline]] __m512 AddTo(__m512 acc, const Scales<T>& scales, uint64_t g,
                                      const PreparedBlock& a) const {
    const __m512 first = _mm512_cvtepi32_ps(part[0]);
    const __m512 scale = _mm512_set1_ps(a.scale);
    if constexpr (Format<T>::kSixteens) {
      const __m512 second = _mm512_cvtepi32_ps(part[kParts - 1]);
      const __m512* halves = scales.halves[g];
      const __m512 both = _mm512_fmadd_ps(halves[0], first, _mm512_mul_ps(halves[1], second));
      return _mm512_fmadd_ps(scale, both, acc);
    }
    acc = _mm512_fmadd_ps(_mm512_mul_ps(scales.d[g], scale), first, acc);
    if constexpr (Format<T>::k.minimum) {
      acc = _mm512_fmadd_ps(scales.m[g], _mm512_set1_ps(a.scaled_sum), acc);
    }
    return acc;
  }
};

// acc[token] += one group's product.  a: of the first token, row_groups from token to token
template <DType T, int kRows>
[[gnu::always_inline]] inline void AddGroup(const std::byte* at, const Scales<T>& scales,
                                            uint64_t g, const PreparedBlock* a, uint64_t row_groups,
                                            __m512* acc) {
  using F = Format<T>;
  __m512i w[8];
  UnpackCodes<T>(at, w);
  if constexpr (F::k.bits == 8) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) w[i] = _mm512_xor_si512(w[i], _mm512_set1_epi8(-128));
  }
  Sums<T> sums[kRows];
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) sums[t].Start(a[static_cast<uint64_t>(t) * row_groups]);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) {
      sums[t].Add(i, w[i], a[static_cast<uint64_t>(t) * row_groups]);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) {
    acc[t] = sums[t].AddTo(acc[t], scales, g, a[static_cast<uint64_t>(t) * row_groups]);
  }
}

// Tokens [first, first + kRows) over one panel.
template <DType T, int kRows>
void MultiplyPanel(const PanelJob& job, const PanelSpan& span, uint64_t first) {
  using F = Format<T>;
  const uint64_t row_groups = job.cols / kInt8Block;
  const PreparedBlock* a = job.int8 + first * row_groups;
  __m512 acc[kRows];
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) acc[t] = _mm512_setzero_ps();
  const std::byte* block = span.at;
  for (uint64_t b = 0; b < row_groups / F::kGroups; ++b, block += F::kBytes) {
    if constexpr (kFetchesAhead<T> && F::kGroups > 1) {
      Prefetch(block + kPrefetchAhead, F::kGroupsAt);
    }
    const Scales<T> scales(block);
    const std::byte* at = block + F::kGroupsAt;
    for (uint64_t g = 0; g < F::kGroups; ++g, at += F::kGroupBytes, ++a) {
      if constexpr (kFetchesAhead<T>) {
        Prefetch(at + kPrefetchAhead, F::kGroups > 1 ? F::kGroupBytes : F::kBytes);
      }
      AddGroup<T, kRows>(at, scales, g, a, row_groups, acc);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) {
    StoreLanes(span, acc[t], span.y + (first + static_cast<uint64_t>(t)) * job.y_stride);
  }
}

// The same for a number of tokens known at run time, at most kTokens.
template <DType T>
void MultiplyPanel(const PanelJob& job, const PanelSpan& span, uint64_t first, uint64_t tokens) {
  switch (tokens) {
    case 1:
      return MultiplyPanel<T, 1>(job, span, first);
    case 2:
      return MultiplyPanel<T, 2>(job, span, first);
    case 3:
      return MultiplyPanel<T, 3>(job, span, first);
    case 4:
      return MultiplyPanel<T, 4>(job, span, first);
    case 5:
      return MultiplyPanel<T, 5>(job, span, first);
    case 6:
      return MultiplyPanel<T, 6>(job, span, first);
    case 7:
      return MultiplyPanel<T, 7>(job, span, first);
    default:
      return MultiplyPanel<T, kTokens>(job, span, first);
  }
}

// A block of a panel, unpacked: 5 KiB.
template <DType T>
struct OpenBlock {
  explicit OpenBlock(const std::byte* block) : scales(block) {
    for (uint64_t g = 0; g < Format<T>::kGroups; ++g) {
      UnpackCodes<T>(block + Format<T>::kGroupsAt + g * Format<T>::kGroupBytes, codes[g]);
    }
  }
  __m512i codes[Format<T>::kGroups][8];
  Scales<T> scales;
};

// acc (kRows, kLanes) += one block's products.  a: of the first token, row_groups from token to
// token
template <DType T, int kRows>
void AddBlock(const OpenBlock<T>& block, const PreparedBlock* a, uint64_t row_groups, float* acc) {
  using F = Format<T>;
  static_assert(F::kSixteens);
  __m512 total[kRows];
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) total[t] = _mm512_load_ps(acc + t * kLanes);
  for (uint64_t g = 0; g < F::kGroups; ++g, ++a) {
    Sums<T> sums[kRows];
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) sums[t].Start(a[static_cast<uint64_t>(t) * row_groups]);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m512i w = block.codes[g][i];
#pragma GCC unroll 8
      for (int t = 0; t < kRows; ++t) {
        sums[t].Add(i, w, a[static_cast<uint64_t>(t) * row_groups]);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) {
      const PreparedBlock& token = a[static_cast<uint64_t>(t) * row_groups];
      total[t] = sums[t].AddTo(total[t], block.scales, g, token);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) _mm512_store_ps(acc + t * kLanes, total[t]);
}

// The tokens of a job, some at a time, whose activations stay in L2 while the panels pass.
template <DType T>
void RunOpened(const PanelJob& job) {
  using F = Format<T>;
  constexpr uint64_t kMost = 128;  // tokens: accumulators take 8 KiB
  const uint64_t row_groups = job.cols / kInt8Block;
  alignas(64) float acc[kMost * kLanes];
  for (uint64_t begin = 0; begin < job.n; begin += kMost) {
    const uint64_t n = job.n - begin < kMost ? job.n - begin : kMost;
    PanelWalk walk(job);
    for (PanelSpan span; walk.Next(span);) {
      for (uint64_t t = 0; t < n; ++t) _mm512_store_ps(acc + t * kLanes, _mm512_setzero_ps());
      const PreparedBlock* a = job.int8 + begin * row_groups;
      for (uint64_t b = 0; b < row_groups / F::kGroups; ++b, a += F::kGroups) {
        const OpenBlock<T> block(span.at + b * F::kBytes);
        uint64_t t = 0;
        for (; t + kTokens <= n; t += kTokens) {
          AddBlock<T, kTokens>(block, a + t * row_groups, row_groups, acc + t * kLanes);
        }
        for (; t < n; ++t) AddBlock<T, 1>(block, a + t * row_groups, row_groups, acc + t * kLanes);
      }
      for (uint64_t t = 0; t < n; ++t) {
        StoreLanes(span, _mm512_load_ps(acc + t * kLanes), span.y + (begin + t) * job.y_stride);
      }
    }
  }
}

template <DType T>
void Run(const PanelJob& job) {
  if constexpr (Format<T>::kSixteens) {
    if (job.n >= kOpenFrom) return RunOpened<T>(job);
  }
  // Two sums a token leave registers for six.
  constexpr uint64_t kTogether = Format<T>::kSixteens ? 6 : kTokens;
  const uint64_t row_bytes = job.cols / kInt8Block * sizeof(PreparedBlock) + 1;
  const uint64_t fitting = kChunkBytes / row_bytes / kTogether * kTogether;
  const uint64_t chunk = fitting < kTogether ? kTogether : fitting;
  for (uint64_t begin = 0; begin < job.n; begin += chunk) {
    const uint64_t end = job.n - begin < chunk ? job.n : begin + chunk;
    PanelWalk walk(job);
    for (PanelSpan span; walk.Next(span);) {
      for (uint64_t t = begin; t < end; t += kTogether) {
        MultiplyPanel<T>(job, span, t, end - t < kTogether ? end - t : kTogether);
      }
    }
  }
}

}  // namespace

void MatMulInt8(const PanelJob& job) {
  WithQuantizedType(job.type, [&](auto type) { Run<decltype(type)::value>(job); });
}

}  // namespace tandem::cpu::avx512
