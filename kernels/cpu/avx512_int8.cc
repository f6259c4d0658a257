// Quantised weights times int8 activations.  y(n, rows) = x(n, cols) * W^T
//
// A panel's block of 32 columns is eight vectors, each four columns of sixteen rows; the
// activations' dword is broadcast by the multiplication itself (vpdpbusd, unsigned weights by
// signed activations, exact in 32 bits). Signed weights enter as w + offset, and each sum starts at
// -offset * sum(q). Then in f32, in block order,
//   acc = fma(d * scale, sum, acc), and for Q4_1 acc = fma(m, scaled_sum, acc).
//
// A block is unpacked into eight registers once for up to eight tokens, whose sums and accumulators
// take sixteen more: nothing but the panel and the activations is read, nothing but y written. For
// one token a panel streams from memory (320 bytes a block for Q4_1, some 40 instructions). For
// many, 512 multiply-adds take 8 cycles of the two multiplying pipes, and 2 or 3 more for the f32
// part; unpacking runs on the other pipes.
#include "kernels/cpu/avx512_inline.h"
#include "kernels/int8_block.h"

namespace tandem::cpu::avx512 {
namespace {

constexpr int kTokens = 8;                   // side by side
constexpr uint64_t kChunkBytes = 512 << 10;  // of activations walked per pass over the panels
constexpr uint64_t kPrefetchAhead = 2048;    // bytes

template <DType T>
struct Format {
  static constexpr bool kWide = T == DType::kQ8_0;
  static constexpr bool kMinimum = T == DType::kQ4_1;
  static constexpr int kOffsetEights = T == DType::kQ8_0 ? 16 : T == DType::kQ4_0 ? 1 : 0;
  static constexpr uint64_t kFields = kWide ? 512 : 256;  // offset of the scales
  static constexpr uint64_t kBytes = kFields + (kMinimum ? 64 : 32);
};

// The cache lines of a block, which may lie past the end of the matrix: a prefetch does not fault.
template <DType T>
[[gnu::always_inline]] inline void Prefetch(const std::byte* block) {
#pragma GCC unroll 9
  for (uint64_t line = 0; line < Format<T>::kBytes; line += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(block) + line, _MM_HINT_T0);
  }
}

// The eight vectors of a block as unsigned bytes.
template <DType T>
[[gnu::always_inline]] inline void Unpack(const std::byte* at, __m512i* w) {
  if constexpr (Format<T>::kWide) {
    const __m512i flip = _mm512_set1_epi8(-128);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) w[i] = _mm512_xor_si512(LoadBytes(at + 64 * i), flip);
  } else {
    const __m512i nibble = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512i both = LoadBytes(at + 64 * i);
      w[i] = _mm512_and_si512(both, nibble);
      w[i + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
    }
  }
}

// What a block's sum starts at: -offset * sum(q).
template <DType T>
[[gnu::always_inline]] inline __m512i Start(const PreparedBlock& a) {
  constexpr int kEights = Format<T>::kOffsetEights;
  if constexpr (kEights == 0) return _mm512_setzero_si512();
  const __m512i eights = BroadcastDword(&a.minus_8_sum);
  return kEights == 1 ? eights : _mm512_slli_epi32(eights, kEights == 16 ? 4 : 1);
}

// Tokens [first, first + kRows) over one panel.
template <DType T, int kRows>
void MultiplyPanel(const PanelJob& job, const PanelSpan& span, uint64_t first) {
  const uint64_t blocks = job.cols / kInt8Block;
  const PreparedBlock* a = job.int8 + first * blocks;
  __m512 acc[kRows];
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) acc[t] = _mm512_setzero_ps();
  const std::byte* at = span.at;
  for (uint64_t b = 0; b < blocks; ++b, ++a, at += Format<T>::kBytes) {
    Prefetch<T>(at + kPrefetchAhead);
    __m512i w[8];
    Unpack<T>(at, w);
    __m512i sums[kRows];
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) sums[t] = Start<T>(a[static_cast<uint64_t>(t) * blocks]);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
#pragma GCC unroll 8
      for (int t = 0; t < kRows; ++t) {
        const PreparedBlock& block = a[static_cast<uint64_t>(t) * blocks];
        sums[t] = _mm512_dpbusd_epi32(sums[t], w[i], BroadcastDword(block.q + 4 * i));
      }
    }
    const __m512 d = LoadHalves(at + Format<T>::kFields);
    __m512 m;
    if constexpr (Format<T>::kMinimum) m = LoadHalves(at + Format<T>::kFields + 32);
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) {
      const PreparedBlock& block = a[static_cast<uint64_t>(t) * blocks];
      const __m512 scale = _mm512_mul_ps(d, _mm512_set1_ps(block.scale));
      acc[t] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(sums[t]), acc[t]);
      if constexpr (Format<T>::kMinimum) {
        acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(block.scaled_sum), acc[t]);
      }
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

template <DType T>
void Run(const PanelJob& job) {
  const uint64_t row_bytes = job.cols / kInt8Block * sizeof(PreparedBlock) + 1;
  const uint64_t fitting = kChunkBytes / row_bytes / kTokens * kTokens;
  const uint64_t chunk = fitting < kTokens ? kTokens : fitting;
  for (uint64_t begin = 0; begin < job.n; begin += chunk) {
    const uint64_t end = job.n - begin < chunk ? job.n : begin + chunk;
    PanelWalk walk(job);
    for (PanelSpan span; walk.Next(span);) {
      for (uint64_t t = begin; t < end; t += kTokens) {
        MultiplyPanel<T>(job, span, t, end - t < kTokens ? end - t : kTokens);
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

}  // namespace tandem::cpu::avx512
