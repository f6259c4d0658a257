// One fold of attention in the AVX2 tier.
//
// Scores: a tile of 3 queries by 4 positions, each an 8-lane chain over head_dim; the lanes of four
// positions are then added pairwise. Values: a tile of 3 queries by 32 columns, positions in order.
// With more than one tile of queries a page of keys or values is widened to f32 once (16 KiB for
// head_dim 64); else f16 is widened as it is read. Both give the same bits.
//
// A head_dim that is no multiple of 8 is left to the portable tier.
#include "kernels/cpu/avx2_inline.h"
#include "kernels/cpu/portable.h"

namespace tandem::cpu::avx2 {
namespace {

constexpr uint32_t kTile = 3;  // queries side by side

[[gnu::always_inline]] inline __m256 Load(const float* at) { return _mm256_loadu_ps(at); }
[[gnu::always_inline]] inline __m256 Load(const uint16_t* at) { return LoadHalves(at); }

// Positions of a fold's page that a query with `count` positions sees.
uint32_t InPage(uint32_t count, uint32_t page) {
  const uint32_t first = page * kPageTokens;
  if (count <= first) return 0;
  return count - first < kPageTokens ? count - first : kPageTokens;
}

// The pages' rows as the kernels read them: `Elem` is f16 as stored, or f32 widened.
template <typename Elem>
struct Page {
  const Elem* rows;  // (kPageTokens, head_dim)
  uint32_t head_dim;
  const Elem* row(uint32_t position) const { return rows + uint64_t{position} * head_dim; }
};

// scores[query][0..4) of four neighbouring positions.
template <typename Elem, uint32_t kQueries>
[[gnu::always_inline]] inline void ScoreFour(const float* const* queries, const Page<Elem>& keys,
                                             uint32_t position, float scale, float* const* scores) {
  const Elem* k[4];
  for (uint32_t i = 0; i < 4; ++i) k[i] = keys.row(position + i);
  __m256 sums[kQueries][4];
  for (uint32_t q = 0; q < kQueries; ++q) {
    for (uint32_t i = 0; i < 4; ++i) sums[q][i] = _mm256_setzero_ps();
  }
  for (uint32_t d = 0; d < keys.head_dim; d += kLanes) {
    __m256 query[kQueries];
    for (uint32_t q = 0; q < kQueries; ++q) query[q] = Load(queries[q] + d);
    for (uint32_t i = 0; i < 4; ++i) {
      const __m256 key = Load(k[i] + d);
      for (uint32_t q = 0; q < kQueries; ++q) {
        sums[q][i] = _mm256_fmadd_ps(query[q], key, sums[q][i]);
      }
    }
  }
  for (uint32_t q = 0; q < kQueries; ++q) {
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(sums[q][0], sums[q][1]),
                                        _mm256_hadd_ps(sums[q][2], sums[q][3]));
    const __m128 dots = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
    _mm_storeu_ps(scores[q] + position, _mm_mul_ps(dots, _mm_set1_ps(scale)));
  }
}

// Scores of positions [0, count) of a page, in fours: up to three more than asked for are written,
// from whatever the page holds there.
template <typename Elem>
void Score(const FoldJob& job, uint32_t first, uint32_t n, const Page<Elem>& keys, uint32_t count,
           float* scores) {
  const float* const* queries = job.queries + first;
  float* rows[kTile];
  for (uint32_t q = 0; q < n; ++q) rows[q] = scores + uint64_t{first + q} * kAttentionFold;
  for (uint32_t s = 0; s < count; s += 4) {
    if (n == 3) {
      ScoreFour<Elem, 3>(queries, keys, s, job.scale, rows);
    } else if (n == 2) {
      ScoreFour<Elem, 2>(queries, keys, s, job.scale, rows);
    } else {
      ScoreFour<Elem, 1>(queries, keys, s, job.scale, rows);
    }
  }
}

// o[query] += p[query][s] * v[s] over positions [begin, end) and columns [d, d + 8 * kVectors).
template <typename Elem, uint32_t kQueries, uint32_t kVectors>
[[gnu::always_inline]] inline void AddColumns(const float* const* p, const Page<Elem>& values,
                                              uint32_t begin, uint32_t end, uint32_t d,
                                              float* const* o) {
  __m256 sums[kQueries][kVectors];
  for (uint32_t q = 0; q < kQueries; ++q) {
    for (uint32_t i = 0; i < kVectors; ++i) sums[q][i] = Load(o[q] + d + i * kLanes);
  }
  for (uint32_t s = begin; s < end; ++s) {
    const Elem* row = values.row(s) + d;
    __m256 weight[kQueries];
    for (uint32_t q = 0; q < kQueries; ++q) weight[q] = _mm256_set1_ps(p[q][s]);
    for (uint32_t i = 0; i < kVectors; ++i) {
      const __m256 v = Load(row + i * kLanes);
      for (uint32_t q = 0; q < kQueries; ++q) {
        sums[q][i] = _mm256_fmadd_ps(weight[q], v, sums[q][i]);
      }
    }
  }
  for (uint32_t q = 0; q < kQueries; ++q) {
    for (uint32_t i = 0; i < kVectors; ++i) _mm256_storeu_ps(o[q] + d + i * kLanes, sums[q][i]);
  }
}

template <typename Elem, uint32_t kQueries>
void AddValues(const float* const* p, const Page<Elem>& values, uint32_t begin, uint32_t end,
               float* const* o) {
  if (begin >= end) return;
  uint32_t d = 0;
  for (; d + 4 * kLanes <= values.head_dim; d += 4 * kLanes) {
    AddColumns<Elem, kQueries, 4>(p, values, begin, end, d, o);
  }
  for (; d < values.head_dim; d += kLanes) {
    AddColumns<Elem, kQueries, 1>(p, values, begin, end, d, o);
  }
}

// One page of values for queries [first, first + n): together as far as all of them see, then each
// alone.
template <typename Elem>
void AddPage(const FoldJob& job, uint32_t first, uint32_t n, uint32_t page,
             const Page<Elem>& values, const float* weights) {
  const float* p[kTile];
  float* o[kTile];
  uint32_t together = kPageTokens;
  for (uint32_t q = 0; q < n; ++q) {
    p[q] = weights + uint64_t{first + q} * kAttentionFold + page * kPageTokens;
    o[q] = job.o + uint64_t{first + q} * job.head_dim;
    const uint32_t count = InPage(job.counts[first + q], page);
    together = count < together ? count : together;
  }
  if (n == 3) {
    AddValues<Elem, 3>(p, values, 0, together, o);
  } else if (n == 2) {
    AddValues<Elem, 2>(p, values, 0, together, o);
  } else {
    AddValues<Elem, 1>(p, values, 0, together, o);
  }
  for (uint32_t q = 0; q < n; ++q) {
    AddValues<Elem, 1>(p + q, values, together, InPage(job.counts[first + q], page), o + q);
  }
}

// scores (count) -> exp(score - m), with m and l. What lies beyond `count` in its last vector is
// overwritten.
void Softmax(float* scores, uint32_t count, float& m, float& l) {
  const uint32_t whole = (count + kLanes - 1) / kLanes * kLanes;
  for (uint32_t i = count; i < whole; ++i) scores[i] = -__builtin_inff();
  __m256 top = Load(scores);
  for (uint32_t i = kLanes; i < whole; i += kLanes) top = _mm256_max_ps(top, Load(scores + i));
  m = MaxLanes(top);
  const __m256 shift = _mm256_set1_ps(m);
  __m256 sum = _mm256_setzero_ps();
  for (uint32_t i = 0; i < whole; i += kLanes) {
    const __m256 weight = Exp(_mm256_sub_ps(Load(scores + i), shift));
    _mm256_storeu_ps(scores + i, weight);
    sum = _mm256_add_ps(sum, weight);
  }
  l = SumLanes(sum);
}

void WidenRows(const uint16_t* from, uint64_t n, float* to) {
  for (uint64_t i = 0; i < n; i += kLanes) _mm256_storeu_ps(to + i, LoadHalves(from + i));
}

}  // namespace

void AttendFold(const FoldJob& job) {
  const uint32_t hd = job.head_dim;
  if (hd % kLanes != 0) {
    portable::AttendFold(job);
    return;
  }
  const bool widen = job.n_queries > kTile;
  float* scores = job.scratch;  // (n_queries, kAttentionFold)
  float* wide = job.scratch + uint64_t{kMaxQueries} * kAttentionFold;  // (kPageTokens, hd)
  uint32_t most = 0;
  for (uint32_t i = 0; i < job.n_queries; ++i) most = most > job.counts[i] ? most : job.counts[i];

  // body(page, first query of a tile, queries in it) for every page and tile with positions in it.
  const auto for_each_tile = [&](const uint16_t* const* pages, auto body) {
    for (uint32_t page = 0; page < kFoldPages && InPage(most, page) > 0; ++page) {
      const uint32_t rows = (InPage(most, page) + 3) / 4 * 4;
      if (widen) WidenRows(pages[page], uint64_t{rows} * hd, wide);
      for (uint32_t first = 0; first < job.n_queries; first += kTile) {
        const uint32_t left = job.n_queries - first;
        const uint32_t n = left < kTile ? left : kTile;
        uint32_t count = 0;
        for (uint32_t q = first; q < first + n; ++q) {
          const uint32_t seen = InPage(job.counts[q], page);
          count = seen > count ? seen : count;
        }
        if (count > 0) body(page, first, n, count);
      }
    }
  };

  for_each_tile(job.keys, [&](uint32_t page, uint32_t first, uint32_t n, uint32_t count) {
    float* to = scores + page * kPageTokens;
    if (widen) {
      Score(job, first, n, Page<float>{wide, hd}, count, to);
    } else {
      Score(job, first, n, Page<uint16_t>{job.keys[page], hd}, count, to);
    }
  });
  for (uint32_t i = 0; i < job.n_queries; ++i) {
    Softmax(scores + uint64_t{i} * kAttentionFold, job.counts[i], job.m[i], job.l[i]);
  }
  for (uint64_t i = 0; i < uint64_t{job.n_queries} * hd; ++i) job.o[i] = 0.0f;
  for_each_tile(job.values, [&](uint32_t page, uint32_t first, uint32_t n, uint32_t) {
    if (widen) {
      AddPage(job, first, n, page, Page<float>{wide, hd}, scores);
    } else {
      AddPage(job, first, n, page, Page<uint16_t>{job.values[page], hd}, scores);
    }
  });
}

void JoinFolds(const FoldState& state, const FoldState& later, uint64_t head_dim) {
  const float m = *later.m > *state.m ? *later.m : *state.m;
  const __m256 before = Exp(_mm256_set1_ps(*state.m - m));
  const __m256 after = Exp(_mm256_set1_ps(*later.m - m));
  *state.m = m;
  *state.l = *state.l * _mm256_cvtss_f32(before) + *later.l * _mm256_cvtss_f32(after);
  ForEachVector(head_dim, [&](uint64_t d, auto lanes) {
    const __m256 scaled = _mm256_mul_ps(lanes.Load(later.o + d), after);
    lanes.Store(state.o + d, _mm256_fmadd_ps(lanes.Load(state.o + d), before, scaled));
  });
}

}  // namespace tandem::cpu::avx2
