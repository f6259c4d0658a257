// Any weights times f32 activations.  y(n, rows) = x(n, cols) * W^T
//
// Every output is one chain over its columns in order: acc = fma(w, x, acc), with w dequantised to
// f32 (for quantised types w = fma(q, d, m)). Four panels at once for one token, and two panels by
// six tokens for more, so that enough chains run side by side.
//
// F32 panels are read in place, F16 and BF16 for one token too; all else is widened into a buffer
// of the first-level cache, kDepth columns at a time, and shared by all tokens.
#include "kernels/cpu/avx2_panel.h"
#include "kernels/int8_block.h"

namespace tandem::cpu::avx2 {
namespace {

constexpr uint64_t kDepth = 128;  // columns widened at a time
constexpr uint64_t kWide = 4;     // panels side by side at most
constexpr uint64_t kTokens = 6;   // side by side
constexpr uint64_t kChunk = 48;   // tokens whose sums are held while the columns advance

template <DType T>
struct Plain {
  static constexpr uint64_t kBytes = T == DType::kF32 ? 32 : 16;  // of a column of a panel
  [[gnu::always_inline]] static __m256 Load(const std::byte* at) {
    if constexpr (T == DType::kF32) {
      return _mm256_loadu_ps(reinterpret_cast<const float*>(at));
    } else if constexpr (T == DType::kF16) {
      return LoadHalves(at);
    } else {
      const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
    }
  }
};

// acc[token][panel] += the columns of `panels` times x (tokens x_stride apart).
template <DType T, int kPanels, int kRows>
[[gnu::always_inline]] inline void Multiply(const std::byte* const* panels, const float* x,
                                            uint64_t x_stride, uint64_t cols, __m256* acc) {
  __m256 sums[kRows][kPanels];
  const std::byte* at[kPanels];
  for (int p = 0; p < kPanels; ++p) at[p] = panels[p];
  for (int t = 0; t < kRows; ++t) {
    for (int p = 0; p < kPanels; ++p) sums[t][p] = acc[t * kPanels + p];
  }
  for (uint64_t c = 0; c < cols; ++c) {
    __m256 w[kPanels];
    for (int p = 0; p < kPanels; ++p) {
      w[p] = Plain<T>::Load(at[p]);
      at[p] += Plain<T>::kBytes;
    }
    for (int t = 0; t < kRows; ++t) {
      const __m256 value = _mm256_set1_ps(x[static_cast<uint64_t>(t) * x_stride + c]);
      for (int p = 0; p < kPanels; ++p) sums[t][p] = _mm256_fmadd_ps(w[p], value, sums[t][p]);
    }
  }
  for (int t = 0; t < kRows; ++t) {
    for (int p = 0; p < kPanels; ++p) acc[t * kPanels + p] = sums[t][p];
  }
}

// The same for any number of tokens.
template <DType T, int kPanels>
void MultiplyTokens(const std::byte* const* panels, const float* x, uint64_t x_stride,
                    uint64_t cols, uint64_t tokens, __m256* acc) {
  uint64_t t = 0;
  if constexpr (kPanels <= 2) {
    for (; t + kTokens <= tokens; t += kTokens) {
      Multiply<T, kPanels, kTokens>(panels, x + t * x_stride, x_stride, cols, acc + t * kPanels);
    }
    for (; t + 3 <= tokens; t += 3) {
      Multiply<T, kPanels, 3>(panels, x + t * x_stride, x_stride, cols, acc + t * kPanels);
    }
  }
  for (; t < tokens; ++t) {
    Multiply<T, kPanels, 1>(panels, x + t * x_stride, x_stride, cols, acc + t * kPanels);
  }
}

// A group of 32 columns as f32.  out (32, kLanes)
template <DType T>
[[gnu::always_inline]] inline void WidenGroup(const std::byte* at, __m256 d, __m256 m,
                                              const __m256* halves, float* out) {
  __m256i w[8];
  UnpackCodes<T>(at, w);
  const __m256i byte_mask = _mm256_set1_epi32(255);
  const __m256i offset = _mm256_set1_epi32(Format<T>::k.offset);
  for (int i = 0; i < 8; ++i) {
    const __m256 scale = Format<T>::kSixteens ? _mm256_mul_ps(d, halves[i / 4]) : d;
    for (int byte = 0; byte < 4; ++byte) {
      __m256i q;
      if constexpr (Format<T>::k.bits == 8) {
        q = _mm256_srai_epi32(_mm256_slli_epi32(w[i], 24 - 8 * byte), 24);
      } else {
        q = _mm256_and_si256(_mm256_srli_epi32(w[i], 8 * byte), byte_mask);
        q = _mm256_sub_epi32(q, offset);
      }
      _mm256_storeu_ps(out + (4 * i + byte) * static_cast<int>(kLanes),
                       _mm256_fmadd_ps(_mm256_cvtepi32_ps(q), scale, m));
    }
  }
}

// Columns [first, first + cols) of one panel as f32; whole groups.  out (cols, kLanes)
template <DType T>
void Widen(const std::byte* panel, uint64_t first, uint64_t cols, float* out) {
  if constexpr (T == DType::kF16 || T == DType::kBF16 || T == DType::kF32) {
    for (uint64_t c = 0; c < cols; ++c) {
      _mm256_storeu_ps(out + c * kLanes, Plain<T>::Load(panel + (first + c) * Plain<T>::kBytes));
    }
  } else {
    using F = Format<T>;
    const uint64_t end = (first + cols) / kInt8Block;
    uint64_t group = first / kInt8Block;
    while (group < end) {
      const std::byte* block = panel + group / F::kGroups * F::kBytes;
      const Scales<T> scales(block);
      for (uint64_t g = group % F::kGroups; g < F::kGroups && group < end; ++g, ++group) {
        const __m256 m = F::k.minimum ? scales.m[g] : _mm256_setzero_ps();
        WidenGroup<T>(block + F::kGroupsAt + g * F::kGroupBytes, scales.d[g], m,
                      scales.halves[F::kSixteens ? g : 0], out);
        out += kInt8Block * kLanes;
      }
    }
  }
}

// Tokens [begin, begin + tokens) over kPanels neighbouring panels.
template <DType T, int kPanels>
void Tile(const PanelJob& job, const PanelSpan* spans, uint64_t begin, uint64_t tokens) {
  constexpr bool kInPlace = T == DType::kF32;
  constexpr bool kPlain = kInPlace || T == DType::kF16 || T == DType::kBF16;
  __m256 acc[kChunk * (kPanels < 3 ? 2 : 1) + kWide];
  for (uint64_t i = 0; i < tokens * kPanels; ++i) acc[i] = _mm256_setzero_ps();
  const float* x = job.f32 + begin * job.cols;

  alignas(32) float wide[kPanels * kDepth * kLanes];
  for (uint64_t c0 = 0; c0 < job.cols; c0 += kDepth) {
    const uint64_t cols = job.cols - c0 < kDepth ? job.cols - c0 : kDepth;
    const std::byte* panels[kPanels];
    if constexpr (kPlain) {
      if (kInPlace || tokens < 3) {
        for (int p = 0; p < kPanels; ++p) panels[p] = spans[p].at + c0 * Plain<T>::kBytes;
        MultiplyTokens<T, kPanels>(panels, x + c0, job.cols, cols, tokens, acc);
        continue;
      }
    }
    for (int p = 0; p < kPanels; ++p) {
      float* to = wide + static_cast<uint64_t>(p) * kDepth * kLanes;
      Widen<T>(spans[p].at, c0, cols, to);
      panels[p] = reinterpret_cast<const std::byte*>(to);
    }
    MultiplyTokens<DType::kF32, kPanels>(panels, x + c0, job.cols, cols, tokens, acc);
  }
  for (uint64_t t = 0; t < tokens; ++t) {
    for (int p = 0; p < kPanels; ++p) {
      StoreLanes(spans[p], acc[t * kPanels + static_cast<uint64_t>(p)],
                 spans[p].y + (begin + t) * job.y_stride);
    }
  }
}

template <DType T>
void Run(const PanelJob& job) {
  for (uint64_t begin = 0; begin < job.n; begin += kChunk) {
    const uint64_t tokens = job.n - begin < kChunk ? job.n - begin : kChunk;
    const uint64_t side_by_side = tokens < 3 ? kWide : 2;
    PanelWalk walk(job);
    PanelSpan spans[kWide];
    uint64_t held = 0;
    while (walk.Next(spans[held])) {
      if (++held < side_by_side) continue;
      if (held == kWide) {
        Tile<T, kWide>(job, spans, begin, tokens);
      } else {
        Tile<T, 2>(job, spans, begin, tokens);
      }
      held = 0;
    }
    for (uint64_t p = 0; p < held; ++p) Tile<T, 1>(job, spans + p, begin, tokens);
  }
}

}  // namespace

void MatMulF32(const PanelJob& job) {
  WithType(job.type, [&](auto type) { Run<decltype(type)::value>(job); });
}

}  // namespace tandem::cpu::avx2
