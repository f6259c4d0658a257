// Quantised weights times int8 activations.  y(n, rows) = x(n, cols) * W^T
//
// A panel's block of 32 columns is eight vectors, each four columns of eight rows; the activations'
// dword is broadcast. 4-bit: u8 x s8 pairs stay below 15*127*2, and eight of them below 2^15, so a
// block is summed in 16 bits and widened once. 8-bit: |w| x sign(a, w), where a pair is at most
// 128*127*2 < 2^15; widened each time. Block sums are exact; then in f32, in block order,
//   acc = fma(d * scale, sum, acc), and for Q4_1 acc = fma(m, scaled_sum, acc).
//
// One token: the panel streams from memory once (160 bytes a block of 8 rows for Q4_1, some 50
// instructions). More: a block is unpacked into registers once for up to 16 tokens, and tokens come
// in chunks whose activations stay in the second-level cache.
#include "kernels/cpu/avx2_inline.h"
#include "kernels/int8_block.h"

namespace tandem::cpu::avx2 {
namespace {

constexpr uint64_t kTokens = 16;             // whose sums are held together
constexpr uint64_t kChunkBytes = 192 << 10;  // of activations walked per pass over the panels
constexpr uint64_t kPrefetchAhead = 1536;    // bytes

template <DType T>
struct Weights {
  static constexpr bool kWide = T == DType::kQ8_0;
  static constexpr bool kMinimum = T == DType::kQ4_1;
  static constexpr uint64_t kFields = kWide ? 256 : 128;  // offset of the scales
  static constexpr uint64_t kBytes = kFields + (kMinimum ? 32 : 16);

  __m256i w[8];  // 4-bit: columns 4i..4i+3; 8-bit: their magnitudes
  __m256 d;
  __m256 m;
  const __m256i* raw;  // 8-bit: the signed weights

  [[gnu::always_inline]] explicit Weights(const std::byte* at) {
    raw = reinterpret_cast<const __m256i*>(at);
    if constexpr (kWide) {
      for (int i = 0; i < 8; ++i) w[i] = _mm256_abs_epi8(_mm256_loadu_si256(raw + i));
    } else {
      const __m256i nibble = _mm256_set1_epi8(15);
      for (int i = 0; i < 4; ++i) {
        const __m256i both = _mm256_loadu_si256(raw + i);
        w[i] = _mm256_and_si256(both, nibble);
        w[i + 4] = _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble);
      }
    }
    d = LoadHalves(at + kFields);
    if constexpr (kMinimum) m = LoadHalves(at + kFields + 16);
  }

  [[gnu::always_inline]] __m256i Dot(const PreparedBlock& a) const {
    const __m256i ones = _mm256_set1_epi16(1);
    if constexpr (kWide) {
      __m256i sum = _mm256_setzero_si256();
      for (int i = 0; i < 8; ++i) {
        const __m256i signed_a =
            _mm256_sign_epi8(BroadcastDword(a.q + 4 * i), _mm256_loadu_si256(raw + i));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w[i], signed_a), ones));
      }
      return sum;
    } else {
      __m256i even = _mm256_maddubs_epi16(w[0], BroadcastDword(a.q));
      __m256i odd = _mm256_maddubs_epi16(w[1], BroadcastDword(a.q + 4));
      for (int i = 2; i < 8; i += 2) {
        even = _mm256_add_epi16(even, _mm256_maddubs_epi16(w[i], BroadcastDword(a.q + 4 * i)));
        odd =
            _mm256_add_epi16(odd, _mm256_maddubs_epi16(w[i + 1], BroadcastDword(a.q + 4 * i + 4)));
      }
      const __m256i sum = _mm256_madd_epi16(_mm256_add_epi16(even, odd), ones);
      if constexpr (T == DType::kQ4_0) return _mm256_sub_epi32(sum, _mm256_set1_epi32(8 * a.sum));
      return sum;
    }
  }

  [[gnu::always_inline]] __m256 Add(const PreparedBlock& a, __m256 acc) const {
    const __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(a.scale));
    acc = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(Dot(a)), acc);
    if constexpr (kMinimum) acc = _mm256_fmadd_ps(m, _mm256_set1_ps(a.scaled_sum), acc);
    return acc;
  }
};

// One token over all panels of the job.
template <DType T>
void OneToken(const PanelJob& job) {
  const uint64_t blocks = job.cols / kInt8Block;
  PanelWalk walk(job);
  PanelSpan span;
  while (walk.Next(span)) {
    __m256 acc = _mm256_setzero_ps();
    const std::byte* at = span.at;
    for (uint64_t b = 0; b < blocks; ++b, at += Weights<T>::kBytes) {
      for (uint64_t line = 0; line < Weights<T>::kBytes; line += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(at) + kPrefetchAhead + line, _MM_HINT_T0);
      }
      acc = Weights<T>(at).Add(job.int8[b], acc);
    }
    StoreLanes(span, acc, span.y);
  }
}

// Tokens [begin, end) over one panel.
template <DType T>
void ManyTokens(const PanelJob& job, const PanelSpan& span, uint64_t begin, uint64_t end) {
  const uint64_t blocks = job.cols / kInt8Block;
  for (uint64_t t0 = begin; t0 < end; t0 += kTokens) {
    const uint64_t tokens = end - t0 < kTokens ? end - t0 : kTokens;
    __m256 acc[kTokens];
    for (uint64_t t = 0; t < tokens; ++t) acc[t] = _mm256_setzero_ps();
    for (uint64_t b = 0; b < blocks; ++b) {
      const Weights<T> weights(span.at + b * Weights<T>::kBytes);
      const PreparedBlock* a = job.int8 + t0 * blocks + b;
      for (uint64_t t = 0; t < tokens; ++t, a += blocks) acc[t] = weights.Add(*a, acc[t]);
    }
    for (uint64_t t = 0; t < tokens; ++t) {
      StoreLanes(span, acc[t], span.y + (t0 + t) * job.y_stride);
    }
  }
}

template <DType T>
void Run(const PanelJob& job) {
  if (job.n == 1) {
    OneToken<T>(job);
    return;
  }
  const uint64_t row_bytes = job.cols / kInt8Block * sizeof(PreparedBlock);
  const uint64_t fit = row_bytes > 0 ? kChunkBytes / row_bytes / kTokens * kTokens : kTokens;
  const uint64_t chunk = fit > kTokens ? fit : kTokens;
  for (uint64_t begin = 0; begin < job.n; begin += chunk) {
    const uint64_t end = job.n - begin < chunk ? job.n : begin + chunk;
    PanelWalk walk(job);
    PanelSpan span;
    while (walk.Next(span)) ManyTokens<T>(job, span, begin, end);
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
