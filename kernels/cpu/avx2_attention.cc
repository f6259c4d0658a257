// One fold of attention in the AVX2 tier.
//
// Scores of keys by column: a tile of 3 queries by 32 positions, columns in order. Of keys by
// position: a tile of 3 queries by 4 positions, each an 8-lane chain over head_dim; the lanes of
// four positions are then added pairwise. Values: a tile of 3 queries by 32 columns, positions in
// order. Keys and values are widened from f16 as they are read, which costs no more than reading
// f32.
//
// A head_dim that is no multiple of 8 is left to the portable tier.
#include "kernels/cpu/avx2_inline.h"
#include "kernels/cpu/portable.h"
#include "kernels/cpu/tier_folds.h"

namespace tandem::cpu::avx2 {
namespace {

constexpr uint32_t kTile = 3;  // queries side by side

// scores[query][s .. s + 8 * kVectors), times scale.  keys: (head_dim, kPageTokens)
template <uint32_t kQueries, uint32_t kVectors>
[[gnu::always_inline]] inline void ScoreTile(const float* const* queries, const Page& keys,
                                             uint32_t head_dim, uint32_t s, float scale,
                                             float* const* scores) {
  __m256 sums[kQueries][kVectors];
  for (uint32_t q = 0; q < kQueries; ++q) {
    for (uint32_t i = 0; i < kVectors; ++i) sums[q][i] = _mm256_setzero_ps();
  }
  for (uint32_t d = 0; d < head_dim; ++d) {
    const uint16_t* row = keys.row(d) + s;
    for (uint32_t i = 0; i < kVectors * kLanes; i += 32) keys.Fetch(d, s + i);
    __m256 query[kQueries];
    for (uint32_t q = 0; q < kQueries; ++q) query[q] = _mm256_set1_ps(queries[q][d]);
    for (uint32_t i = 0; i < kVectors; ++i) {
      const __m256 key = LoadHalves(row + i * kLanes);
      for (uint32_t q = 0; q < kQueries; ++q) {
        sums[q][i] = _mm256_fmadd_ps(query[q], key, sums[q][i]);
      }
    }
  }
  for (uint32_t q = 0; q < kQueries; ++q) {
    for (uint32_t i = 0; i < kVectors; ++i) {
      _mm256_storeu_ps(scores[q] + s + i * kLanes,
                       _mm256_mul_ps(sums[q][i], _mm256_set1_ps(scale)));
    }
  }
}

// scores[query][0..4) of four neighbouring positions.  keys: (kPageTokens, head_dim)
template <uint32_t kQueries>
[[gnu::always_inline]] inline void ScoreFour(const float* const* queries, const Page& keys,
                                             uint32_t position, float scale, float* const* scores) {
  const uint16_t* k[4];
  for (uint32_t i = 0; i < 4; ++i) k[i] = keys.row(position + i);
  __m256 sums[kQueries][4];
  for (uint32_t q = 0; q < kQueries; ++q) {
    for (uint32_t i = 0; i < 4; ++i) sums[q][i] = _mm256_setzero_ps();
  }
  for (uint32_t d = 0; d < keys.width; d += kLanes) {
    __m256 query[kQueries];
    for (uint32_t q = 0; q < kQueries; ++q) query[q] = _mm256_loadu_ps(queries[q] + d);
    for (uint32_t i = 0; i < 4; ++i) {
      const __m256 key = LoadHalves(k[i] + d);
      if (d % 32 == 0) keys.Fetch(position + i, d);
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

template <uint32_t kQueries>
void Score(const FoldJob& job, uint32_t first, const Page& keys, uint32_t begin, uint32_t end,
           float* const* scores) {
  const float* const* queries = job.queries + first;
  if (job.key_order == KeyOrder::kByPosition) {
    for (uint32_t s = begin / 4 * 4; s < end; s += 4) {
      ScoreFour<kQueries>(queries, keys, s, job.scale, scores);
    }
    return;
  }
  uint32_t s = begin / kLanes * kLanes;
  for (; s + 3 * kLanes < end; s += 4 * kLanes) {
    ScoreTile<kQueries, 4>(queries, keys, job.head_dim, s, job.scale, scores);
  }
  for (; s < end; s += kLanes) {
    ScoreTile<kQueries, 1>(queries, keys, job.head_dim, s, job.scale, scores);
  }
}

// Scores of queries [first, first + n) and positions [begin, end) of a page, in whole vectors:
// more than asked for are written at either end, from whatever the page holds there.
void ScorePage(const FoldJob& job, uint32_t first, uint32_t n, uint32_t page, uint32_t begin,
               uint32_t end) {
  const Page keys = KeysOf(job, page, first);
  float* scores[kTile];  // of the page
  for (uint32_t q = 0; q < n; ++q) {
    scores[q] = job.scratch + uint64_t{first + q} * kAttentionFold + page * kPageTokens;
  }
  if (n == 3) {
    Score<3>(job, first, keys, begin, end, scores);
  } else if (n == 2) {
    Score<2>(job, first, keys, begin, end, scores);
  } else {
    Score<1>(job, first, keys, begin, end, scores);
  }
}

// o[query] += p[query][s] * v[s] over positions [begin, end) and columns [d, d + 8 * kVectors).
template <uint32_t kQueries, uint32_t kVectors>
[[gnu::always_inline]] inline void AddColumns(const float* const* p, const Page& values,
                                              uint32_t begin, uint32_t end, uint32_t d,
                                              float* const* o) {
  __m256 sums[kQueries][kVectors];
  for (uint32_t q = 0; q < kQueries; ++q) {
    for (uint32_t i = 0; i < kVectors; ++i) sums[q][i] = _mm256_loadu_ps(o[q] + d + i * kLanes);
  }
  for (uint32_t s = begin; s < end; ++s) {
    const uint16_t* row = values.row(s) + d;
    for (uint32_t i = 0; i < kVectors * kLanes; i += 32) values.Fetch(s, d + i);
    __m256 weight[kQueries];
    for (uint32_t q = 0; q < kQueries; ++q) weight[q] = _mm256_set1_ps(p[q][s]);
    for (uint32_t i = 0; i < kVectors; ++i) {
      const __m256 v = LoadHalves(row + i * kLanes);
      for (uint32_t q = 0; q < kQueries; ++q) {
        sums[q][i] = _mm256_fmadd_ps(weight[q], v, sums[q][i]);
      }
    }
  }
  for (uint32_t q = 0; q < kQueries; ++q) {
    for (uint32_t i = 0; i < kVectors; ++i) _mm256_storeu_ps(o[q] + d + i * kLanes, sums[q][i]);
  }
}

template <uint32_t kQueries>
void AddValues(const float* const* p, const Page& values, uint32_t begin, uint32_t end,
               float* const* o) {
  if (begin >= end) return;
  uint32_t d = 0;
  for (; d + 4 * kLanes <= values.width; d += 4 * kLanes) {
    AddColumns<kQueries, 4>(p, values, begin, end, d, o);
  }
  for (; d < values.width; d += kLanes) {
    AddColumns<kQueries, 1>(p, values, begin, end, d, o);
  }
}

// One page of values for queries [first, first + n): together over what all of them see, and each
// alone over what it sees before and after that.
void AddPage(const FoldJob& job, uint32_t first, uint32_t n, uint32_t page, const Page& values,
             const float* weights) {
  const float* p[kTile];
  float* o[kTile];
  for (uint32_t q = 0; q < n; ++q) {
    p[q] = weights + uint64_t{first + q} * kAttentionFold + page * kPageTokens;
    o[q] = job.o + uint64_t{first + q} * job.head_dim;
  }
  CutByQueries(
      job, first, n, page,
      [&](uint32_t q, uint32_t begin, uint32_t end) {
        AddValues<1>(p + q, values, begin, end, o + q);
      },
      [&](uint32_t begin, uint32_t end) {
        if (n == 3) {
          AddValues<3>(p, values, begin, end, o);
        } else if (n == 2) {
          AddValues<2>(p, values, begin, end, o);
        } else {
          AddValues<1>(p, values, begin, end, o);
        }
      });
}

// scores [first, count) -> exp(score - m), with m and l. What lies outside in the first and the
// last vector becomes 0, which adds nothing.
void Softmax(float* scores, uint32_t first, uint32_t count, float& m, float& l) {
  const uint32_t from = first / kLanes * kLanes;
  const uint32_t whole = (count + kLanes - 1) / kLanes * kLanes;
  for (uint32_t i = from; i < first; ++i) scores[i] = -__builtin_inff();
  for (uint32_t i = count; i < whole; ++i) scores[i] = -__builtin_inff();
  __m256 top = _mm256_loadu_ps(scores + from);
  for (uint32_t i = from + kLanes; i < whole; i += kLanes)
    top = _mm256_max_ps(top, _mm256_loadu_ps(scores + i));
  m = MaxLanes(top);
  const __m256 shift = _mm256_set1_ps(m);
  __m256 sum = _mm256_setzero_ps();
  for (uint32_t i = from; i < whole; i += kLanes) {
    const __m256 weight = Exp(_mm256_sub_ps(_mm256_loadu_ps(scores + i), shift));
    _mm256_storeu_ps(scores + i, weight);
    sum = _mm256_add_ps(sum, weight);
  }
  l = SumLanes(sum);
}

}  // namespace

void AttendFold(const FoldJob& job) {
  const uint32_t hd = job.head_dim;
  if (hd % kLanes != 0) {
    portable::AttendFold(job);
    return;
  }
  float* scores = job.scratch;  // (n_queries, kAttentionFold)
  ForEachTile(job, kTile,
              [&](uint32_t page, uint32_t first, uint32_t n, uint32_t begin, uint32_t end) {
                ScorePage(job, first, n, page, begin, end);
              });
  for (uint32_t i = 0; i < job.n_queries; ++i) {
    Softmax(scores + uint64_t{i} * kAttentionFold, job.firsts[i], job.counts[i], job.m[i],
            job.l[i]);
  }
  for (uint64_t i = 0; i < uint64_t{job.n_queries} * hd; ++i) job.o[i] = 0.0f;
  ForEachTile(job, kTile, [&](uint32_t page, uint32_t first, uint32_t n, uint32_t, uint32_t) {
    AddPage(job, first, n, page, ValuesOf(job, page, first), scores);
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
