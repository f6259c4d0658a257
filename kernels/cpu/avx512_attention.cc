// One fold of attention in the AVX-512 tiers.
//
// Scores of keys by column: a tile of 6 queries by 64 positions, columns in order. Of keys by
// position: a tile of 3 queries by 8 positions, each a 16-lane chain over head_dim; the lanes of
// the eight positions are then added in a tree that yields all eight sums in one vector. Values: a
// tile of 6 queries by 64 columns, positions in order. Keys and values are widened from f16 as they
// are read.
//
// A head_dim that is no multiple of 16 is left to the portable tier.
#include <type_traits>

#include "kernels/cpu/avx512_inline.h"
#include "kernels/cpu/portable.h"
#include "kernels/cpu/tier_folds.h"

namespace tandem::cpu::avx512 {
namespace {

constexpr uint32_t kTile = 6;  // queries side by side

// scores[query][s .. s + 16 * kVectors), times scale.  keys: (head_dim, kPageTokens)
template <uint32_t kQueries, uint32_t kVectors>
[[gnu::always_inline]] inline void ScoreTile(const float* const* queries, const Page& keys,
                                             uint32_t head_dim, uint32_t s, float scale,
                                             float* const* scores) {
  __m512 sums[kQueries][kVectors];
#pragma GCC unroll 6
  for (uint32_t q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (uint32_t i = 0; i < kVectors; ++i) sums[q][i] = _mm512_setzero_ps();
  }
  for (uint32_t d = 0; d < head_dim; ++d) {
    const uint16_t* row = keys.row(d) + s;
    for (uint32_t i = 0; i < kVectors * kLanes; i += 32) keys.Fetch(d, s + i);
    __m512 key[kVectors];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < kVectors; ++i) key[i] = LoadHalves(row + i * kLanes);
#pragma GCC unroll 6
    for (uint32_t q = 0; q < kQueries; ++q) {
      const __m512 query = _mm512_set1_ps(queries[q][d]);
#pragma GCC unroll 4
      for (uint32_t i = 0; i < kVectors; ++i) {
        sums[q][i] = _mm512_fmadd_ps(query, key[i], sums[q][i]);
      }
    }
  }
#pragma GCC unroll 6
  for (uint32_t q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (uint32_t i = 0; i < kVectors; ++i) {
      _mm512_storeu_ps(scores[q] + s + i * kLanes,
                       _mm512_mul_ps(sums[q][i], _mm512_set1_ps(scale)));
    }
  }
}

template <uint32_t kQueries>
void Score(const float* const* queries, const Page& keys, uint32_t head_dim, uint32_t begin,
           uint32_t end, float scale, float* const* scores) {
  uint32_t s = begin / kLanes * kLanes;
  for (; s + 3 * kLanes < end; s += 4 * kLanes) {
    ScoreTile<kQueries, 4>(queries, keys, head_dim, s, scale, scores);
  }
  for (; s + kLanes < end; s += 2 * kLanes) {
    ScoreTile<kQueries, 2>(queries, keys, head_dim, s, scale, scores);
  }
  if (s < end) ScoreTile<kQueries, 1>(queries, keys, head_dim, s, scale, scores);
}

constexpr uint32_t kPositions = 8;  // scored side by side

// Lane sums of eight vectors, in order. Each vector's lanes are added in one fixed order: lane i
// and i + 8, then i + 4, i + 2, i + 1.
[[gnu::always_inline]] inline __m256 SumEight(const __m512* v) {
  __m256 half[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    half[i] = _mm256_add_ps(_mm512_castps512_ps256(v[i]), _mm512_extractf32x8_ps(v[i], 1));
  }
  // Quarters: two vectors of four lanes in each.
  __m256 pair[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    pair[i] = _mm256_add_ps(_mm256_permute2f128_ps(half[i], half[i + 4], 0x20),
                            _mm256_permute2f128_ps(half[i], half[i + 4], 0x31));
  }
  const auto fold_two = [](__m256 a, __m256 b) {
    return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
  };
  const __m256 low = fold_two(pair[0], pair[1]);
  const __m256 high = fold_two(pair[2], pair[3]);
  return _mm256_add_ps(_mm256_shuffle_ps(low, high, 0x88), _mm256_shuffle_ps(low, high, 0xdd));
}

// scores[query][position .. position + 8)
template <uint32_t kQueries>
[[gnu::always_inline]] inline void ScoreEight(const float* const* queries, const Page& keys,
                                              uint32_t position, float scale,
                                              float* const* scores) {
  __m512 sums[kQueries][kPositions];
#pragma GCC unroll 3
  for (uint32_t q = 0; q < kQueries; ++q) {
#pragma GCC unroll 8
    for (uint32_t i = 0; i < kPositions; ++i) sums[q][i] = _mm512_setzero_ps();
  }
  const uint16_t* row = keys.row(position);
  for (uint32_t d = 0; d < keys.width; d += kLanes) {
    __m512 query[kQueries];
#pragma GCC unroll 3
    for (uint32_t q = 0; q < kQueries; ++q) query[q] = _mm512_loadu_ps(queries[q] + d);
#pragma GCC unroll 8
    for (uint32_t i = 0; i < kPositions; ++i) {
      const __m512 key = LoadHalves(row + uint64_t{i} * keys.width + d);
      if (d % 32 == 0) keys.Fetch(position + i, d);
#pragma GCC unroll 3
      for (uint32_t q = 0; q < kQueries; ++q) {
        sums[q][i] = _mm512_fmadd_ps(query[q], key, sums[q][i]);
      }
    }
  }
#pragma GCC unroll 3
  for (uint32_t q = 0; q < kQueries; ++q) {
    _mm256_storeu_ps(scores[q] + position, _mm256_mul_ps(SumEight(sums[q]), _mm256_set1_ps(scale)));
  }
}

// The same of keys (kPageTokens, head_dim), in eights cut at multiples of eight.
template <uint32_t kQueries>
void ScoreRows(const float* const* queries, const Page& keys, uint32_t begin, uint32_t end,
               float scale, float* const* scores) {
  for (uint32_t s = begin / kPositions * kPositions; s < end; s += kPositions) {
    ScoreEight<kQueries>(queries, keys, s, scale, scores);
  }
}

// Scores of queries [first, first + n) and positions [begin, end) of a page, in whole vectors: more
// than asked for are written at either end, from whatever the page holds there.
void ScorePage(const FoldJob& job, uint32_t first, uint32_t n, uint32_t page, uint32_t begin,
               uint32_t end) {
  const float* const* queries = job.queries + first;
  Page keys = KeysOf(job, page, first);
  float* scores[kTile];  // of the page
  for (uint32_t q = 0; q < n; ++q) {
    scores[q] = job.scratch + uint64_t{first + q} * kAttentionFold + page * kPageTokens;
  }
  uint32_t q = 0;
  const auto take = [&](auto queries_together) {
    constexpr uint32_t kTogether = decltype(queries_together)::value;
    for (; q + kTogether <= n; q += kTogether) {
      if (job.key_order == KeyOrder::kByColumn) {
        Score<kTogether>(queries + q, keys, job.head_dim, begin, end, job.scale, scores + q);
      } else if constexpr (kTogether <= 3) {
        ScoreRows<kTogether>(queries + q, keys, begin, end, job.scale, scores + q);
      }
      keys = keys.Alone();
    }
  };
  if (job.key_order == KeyOrder::kByColumn) take(std::integral_constant<uint32_t, 6>());
  take(std::integral_constant<uint32_t, 3>());
  take(std::integral_constant<uint32_t, 2>());
  take(std::integral_constant<uint32_t, 1>());
}

// o[query] += p[query][s] * v[s] over positions [begin, end) and columns [d, d + 16 * kVectors).
template <uint32_t kQueries, uint32_t kVectors>
[[gnu::always_inline]] inline void AddColumns(const float* const* p, const Page& values,
                                              uint32_t begin, uint32_t end, uint32_t d,
                                              float* const* o) {
  __m512 sums[kQueries][kVectors];
#pragma GCC unroll 6
  for (uint32_t q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (uint32_t i = 0; i < kVectors; ++i) sums[q][i] = _mm512_loadu_ps(o[q] + d + i * kLanes);
  }
  for (uint32_t s = begin; s < end; ++s) {
    const uint16_t* row = values.row(s) + d;
    for (uint32_t i = 0; i < kVectors * kLanes; i += 32) values.Fetch(s, d + i);
    __m512 v[kVectors];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < kVectors; ++i) v[i] = LoadHalves(row + i * kLanes);
#pragma GCC unroll 6
    for (uint32_t q = 0; q < kQueries; ++q) {
      const __m512 weight = _mm512_set1_ps(p[q][s]);
#pragma GCC unroll 4
      for (uint32_t i = 0; i < kVectors; ++i) {
        sums[q][i] = _mm512_fmadd_ps(weight, v[i], sums[q][i]);
      }
    }
  }
#pragma GCC unroll 6
  for (uint32_t q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (uint32_t i = 0; i < kVectors; ++i) _mm512_storeu_ps(o[q] + d + i * kLanes, sums[q][i]);
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
        uint32_t q = 0;
        for (; q + 6 <= n; q += 6) AddValues<6>(p + q, values, begin, end, o + q);
        for (; q + 3 <= n; q += 3) AddValues<3>(p + q, values, begin, end, o + q);
        for (; q + 2 <= n; q += 2) AddValues<2>(p + q, values, begin, end, o + q);
        for (; q < n; ++q) AddValues<1>(p + q, values, begin, end, o + q);
      });
}

// scores [first, count) -> exp(score - m), with m and l. What lies outside in the first and the
// last vector becomes 0, which adds nothing.
void Softmax(float* scores, uint32_t first, uint32_t count, float& m, float& l) {
  const uint32_t from = first / kLanes * kLanes;
  const uint32_t whole = (count + kLanes - 1) / kLanes * kLanes;
  for (uint32_t i = from; i < first; ++i) scores[i] = -__builtin_inff();
  for (uint32_t i = count; i < whole; ++i) scores[i] = -__builtin_inff();
  __m512 top = _mm512_loadu_ps(scores + from);
  for (uint32_t i = from + kLanes; i < whole; i += kLanes)
    top = _mm512_max_ps(top, _mm512_loadu_ps(scores + i));
  m = MaxLanes(top);
  const __m512 shift = _mm512_set1_ps(m);
  __m512 sum = _mm512_setzero_ps();
  for (uint32_t i = from; i < whole; i += kLanes) {
    const __m512 weight = Exp(_mm512_sub_ps(_mm512_loadu_ps(scores + i), shift));
    _mm512_storeu_ps(scores + i, weight);
    sum = _mm512_add_ps(sum, weight);
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
  const __m512 before = Exp(_mm512_set1_ps(*state.m - m));
  const __m512 after = Exp(_mm512_set1_ps(*later.m - m));
  *state.m = m;
  *state.l = *state.l * _mm512_cvtss_f32(before) + *later.l * _mm512_cvtss_f32(after);
  ForEachVector(head_dim, [&](uint64_t d, auto lanes) {
    const __m512 scaled = _mm512_mul_ps(lanes.Load(later.o + d), after);
    lanes.Store(state.o + d, _mm512_fmadd_ps(lanes.Load(state.o + d), before, scaled));
  });
}

}  // namespace tandem::cpu::avx512
