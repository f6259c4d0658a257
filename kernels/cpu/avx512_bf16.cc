// BF16 weights times activations rounded to BF16.  y(n, rows) = x(n, cols) * W^T
//
// A vector of a panel holds a pair of neighbouring columns of sixteen rows; the activations' pair
// is broadcast. Every output is one chain over its pairs of columns in order, by vdpbf16ps, which
// adds the odd product, then the even one, each rounded to f32, and takes subnormals for zero.
//
// Two panels by eight tokens: 16 products for 2 vectors of weights and 8 broadcasts read. For one
// token the panels stream from memory (128 bytes and two products a pair).
#include "kernels/cpu/avx512_inline.h"

namespace tandem::cpu::avx512 {
namespace {

constexpr int kTokens = 8;                   // side by side
constexpr uint64_t kChunkBytes = 512 << 10;  // of activations walked per pass over the panels

[[gnu::always_inline]] inline __m512bh AsPairs(__m512i bits) {
  return reinterpret_cast<__m512bh>(bits);
}

// Tokens [first, first + kRows) over kPanels neighbouring panels.
template <int kPanels, int kRows>
void Multiply(const PanelJob& job, const PanelSpan* spans, uint64_t first) {
  const uint64_t stride = PaddedBf16Cols(job.cols);
  const uint64_t pairs = stride / 2;
  const uint16_t* x = job.bf16 + first * stride;
  __m512 acc[kRows][kPanels];
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) {
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) acc[t][p] = _mm512_setzero_ps();
  }
  const std::byte* at[kPanels];
  for (int p = 0; p < kPanels; ++p) at[p] = spans[p].at;
  for (uint64_t i = 0; i < pairs; ++i, x += 2) {
    __m512bh w[kPanels];
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
      w[p] = AsPairs(LoadBytes(at[p]));
      at[p] += 64;
    }
#pragma GCC unroll 8
    for (int t = 0; t < kRows; ++t) {
      const __m512bh pair = AsPairs(BroadcastDword(x + static_cast<uint64_t>(t) * stride));
#pragma GCC unroll 2
      for (int p = 0; p < kPanels; ++p) acc[t][p] = _mm512_dpbf16_ps(acc[t][p], w[p], pair);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kRows; ++t) {
#pragma GCC unroll 2
    for (int p = 0; p < kPanels; ++p) {
      StoreLanes(spans[p], acc[t][p],
                 spans[p].y + (first + static_cast<uint64_t>(t)) * job.y_stride);
    }
  }
}

// Tokens [begin, end) over kPanels panels.
template <int kPanels>
void MultiplyTokens(const PanelJob& job, const PanelSpan* spans, uint64_t begin, uint64_t end) {
  uint64_t t = begin;
  for (; t + kTokens <= end; t += kTokens) Multiply<kPanels, kTokens>(job, spans, t);
  for (; t + 4 <= end; t += 4) Multiply<kPanels, 4>(job, spans, t);
  for (; t + 2 <= end; t += 2) Multiply<kPanels, 2>(job, spans, t);
  if (t < end) Multiply<kPanels, 1>(job, spans, t);
}

}  // namespace

void ToBf16(const float* x, uint64_t n, uint16_t* out) {
  for (uint64_t i = 0; i < n; i += kLanes) {
    const __mmask16 lanes = Lanes(0, n - i < kLanes ? n - i : kLanes);
    const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, x + i));
    _mm256_mask_storeu_epi16(out + i, lanes, reinterpret_cast<__m256i>(rounded));
  }
}

void MatMulBf16(const PanelJob& job) {
  const uint64_t fitting = kChunkBytes / (2 * job.cols + 2) / kTokens * kTokens;
  const uint64_t chunk = fitting < kTokens ? kTokens : fitting;
  for (uint64_t begin = 0; begin < job.n; begin += chunk) {
    const uint64_t end = job.n - begin < chunk ? job.n : begin + chunk;
    PanelWalk walk(job);
    PanelSpan spans[2];
    while (walk.Next(spans[0])) {
      if (walk.Next(spans[1])) {
        MultiplyTokens<2>(job, spans, begin, end);
      } else {
        MultiplyTokens<1>(job, spans, begin, end);
      }
    }
  }
}

}  // namespace tandem::cpu::avx512
