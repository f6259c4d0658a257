// Any weights times f32 activations.  y(n, rows) = x(n, cols) * W^T
//
// Every output is one chain over its columns in order: acc = fma(w, x, acc), with w dequantised to
// f32 (for quantised types w = fma(q, d, m)). Four panels by six tokens at most, 24 chains, so that
// the multiplying pipes never wait and reads are few.
//
// F32 panels are read in place, and F16 for one or two tokens; all else is widened into a buffer
// of the first-level cache, kDepth columns at a time, and shared by all tokens.
#include "kernels/cpu/avx512_panel.h"
#include "kernels/int8_block.h"

namespace tandem::cpu::avx512 {
namespace {

constexpr uint64_t kDepth = 128;  // columns widened at a time
constexpr uint64_t kWide = 4;     // panels side by side at most
constexpr uint64_t kTokens = 6;   // side by side
constexpr uint64_t kChunk = 48;   // tokens whose sums are held while the columns advance

// One column of a panel of a type that is read in place.
template <DType T>
struct Column {
  static constexpr uint64_t kBytes = T == DType::kF32 ? 64 : 32;
  [[gnu::always_inline]] static __m512 Load(const std::byte* at) {
    if constexpr (T == DType::kF32) return _mm512_loadu_ps(at);
    return LoadHalves(at);
  }
};

// acc[token][panel] += the columns of `panels` times x (tokens x_stride apart).
template <DType T, int kPanels, int kRows>
[[gnu::always_inline]] inline void Multiply(const std::byte* const* panels, const float* x,
                                            uint64_t x_stride, uint64_t cols, __m512* acc) {
  __m512 sums[kRows][kPanels];
  const std::byte* at[kPanels];
  for (int p = 0; p < kPanels; ++p) at[p] = panels[p];
  for (int t = 0; t < kRows; ++t) {
    for (int p = 0; p < kPanels; ++p) sums[t][p] = acc[t * kPanels + p];
  }
  for (uint64_t c = 0; c < cols; ++c) {
    __m512 w[kPanels];
    for (int p = 0; p < kPanels; ++p) {
      w[p] = Column<T>::Load(at[p]);
      at[p] += Column<T>::kBytes;
    }
    for (int t = 0; t < kRows; ++t) {
      const __m512 value = _mm512_set1_ps(x[static_cast<uint64_t>(t) * x_stride + c]);
      for (int p = 0; p < kPanels; ++p) sums[t][p] = _mm512_fmadd_ps(w[p], value, sums[t][p]);
    }
  }
  for (int t = 0; t < kRows; ++t) {
    for (int p = 0; p < kPanels; ++p) acc[t * kPanels + p] = sums[t][p];
  }
}

// The same for any number of tokens.
template <DType T, int kPanels>
void MultiplyTokens(const std::byte* const* panels, const float* x, uint64_t x_stride,
                    uint64_t cols, uint64_t tokens, __m512* acc) {
  uint64_t t = 0;
  for (; t + kTokens <= tokens; t += kTokens) {
    Multiply<T, kPanels, kTokens>(panels, x + t * x_stride, x_stride, cols, acc + t * kPanels);
  }
  for (; t + 2 <= tokens; t += 2) {
    Multiply<T, kPanels, 2>(panels, x + t * x_stride, x_stride, cols, acc + t * kPanels);
  }
  if (t < tokens) {
    Multiply<T, kPanels, 1>(panels, x + t * x_stride, x_stride, cols, acc + t * kPanels);
  }
}

// A group as 32 columns of f32.  out (32, kLanes)
template <DType T>
[[gnu::always_inline]] inline void WidenGroup(const std::byte* at, const Scales<T>& scales,
                                              uint64_t g, float* out) {
  __m512i w[8];
  UnpackCodes<T>(at, w);
  const __m512i offset = _mm512_set1_epi32(Format<T>::k.offset);
  const __m512 m = Format<T>::k.minimum ? scales.m[g] : _mm512_setzero_ps();
  for (int i = 0; i < 8; ++i) {
    const __m512 scale = Format<T>::kSixteens ? scales.halves[g][i / 4] : scales.d[g];
    for (int byte = 0; byte < 4; ++byte, out += kLanes) {
      const __m512i top = _mm512_slli_epi32(w[i], static_cast<unsigned>(24 - 8 * byte));
      const __m512i q = Format<T>::k.bits == 8
                            ? _mm512_srai_epi32(top, 24)
                            : _mm512_sub_epi32(_mm512_srli_epi32(top, 24), offset);
      _mm512_storeu_ps(out, _mm512_fmadd_ps(_mm512_cvtepi32_ps(q), scale, m));
    }
  }
}

// Columns [first, first + cols) of one panel as f32, whole groups or pairs.  out (cols, kLanes);
// one more column may be written where cols is odd.
template <DType T>
void Widen(const std::byte* panel, uint64_t first, uint64_t cols, float* out) {
  if constexpr (T == DType::kBF16) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    for (uint64_t c = 0; c < cols; c += 2, out += 2 * kLanes) {
      const __m512i pair = LoadBytes(panel + (first + c) / 2 * 64);
      _mm512_storeu_ps(out, _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)));
      _mm512_storeu_ps(out + kLanes, _mm512_castsi512_ps(_mm512_and_si512(pair, upper)));
    }
  } else if constexpr (T == DType::kF16) {
    for (uint64_t c = 0; c < cols; ++c) {
      _mm512_storeu_ps(out + c * kLanes, LoadHalves(panel + (first + c) * 32));
    }
  } else {
    using F = Format<T>;
    const uint64_t end = (first + cols) / kInt8Block;
    uint64_t group = first / kInt8Block;
    while (group < end) {
      const std::byte* block = panel + group / F::kGroups * F::kBytes;
      const Scales<T> scales(block);
      for (uint64_t g = group % F::kGroups; g < F::kGroups && group < end; ++g, ++group) {
        WidenGroup<T>(block + F::kGroupsAt + g * F::kGroupBytes, scales, g, out);
        out += kInt8Block * kLanes;
      }
    }
  }
}

// Tokens [begin, begin + tokens) over kPanels neighbouring panels.
template <DType T, int kPanels>
void Tile(const PanelJob& job, const PanelSpan* spans, uint64_t begin, uint64_t tokens) {
  constexpr bool kMayReadInPlace = T == DType::kF32 || T == DType::kF16;
  __m512 acc[kChunk * kPanels];
  for (uint64_t i = 0; i < tokens * kPanels; ++i) acc[i] = _mm512_setzero_ps();
  const float* x = job.f32 + begin * job.cols;

  alignas(64) float wide[kPanels * kDepth * kLanes];
  for (uint64_t c0 = 0; c0 < job.cols; c0 += kDepth) {
    const uint64_t cols = job.cols - c0 < kDepth ? job.cols - c0 : kDepth;
    const std::byte* panels[kPanels];
    if constexpr (kMayReadInPlace) {
      if (T == DType::kF32 || tokens < 3) {
        for (int p = 0; p < kPanels; ++p) panels[p] = spans[p].at + c0 * Column<T>::kBytes;
        MultiplyTokens<T, kPanels>(panels, x + c0, job.cols, cols, tokens, acc);
        continue;
      }
    }
    if constexpr (T != DType::kF32) {
      for (int p = 0; p < kPanels; ++p) {
        float* to = wide + static_cast<uint64_t>(p) * kDepth * kLanes;
        Widen<T>(spans[p].at, c0, cols, to);
        panels[p] = reinterpret_cast<const std::byte*>(to);
      }
      MultiplyTokens<DType::kF32, kPanels>(panels, x + c0, job.cols, cols, tokens, acc);
    }
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
    PanelWalk walk(job);
    PanelSpan spans[kWide];
    uint64_t held = 0;
    while (walk.Next(spans[held])) {
      if (++held < kWide) continue;
      Tile<T, kWide>(job, spans, begin, tokens);
      held = 0;
    }
    for (uint64_t p = 0; p < held; ++p) Tile<T, 1>(job, spans + p, begin, tokens);
  }
}

}  // namespace

void MatMulF32(const PanelJob& job) {
  WithType(job.type, [&](auto type) { Run<decltype(type)::value>(job); });
}

}  // namespace tandem::cpu::avx512
