// What the tiers do alike with a fold of attention: which positions of which page which queries
// see. Internal linkage, as tier_panels.h.
#pragma once

#include "kernels/cpu/tier.h"

namespace tandem::cpu {
namespace {

// How many of a page's positions lie before position `end` of the fold.
[[gnu::always_inline]] inline uint32_t InPage(uint32_t end, uint32_t page) {
  const uint32_t first = page * kPageTokens;
  if (end <= first) return 0;
  return end - first < kPageTokens ? end - first : kPageTokens;
}

// A page's keys or values of one head, and as many bytes to fetch meanwhile (FoldJob).
struct Page {
  const uint16_t* rows;   // (n, width) f16
  const uint16_t* ahead;  // likewise
  uint32_t width;
  [[gnu::always_inline]] const uint16_t* row(uint32_t i) const {
    return rows + uint64_t{i} * width;
  }
  // Fetches the 32 halves from column `column` on of what lies ahead, into the second cache.
  [[gnu::always_inline]] void Fetch(uint32_t i, uint32_t column) const {
    __builtin_prefetch(ahead + uint64_t{i} * width + column, 0, 2);
  }
  // The same with nothing to fetch but what is read.
  [[gnu::always_inline]] Page Alone() const { return {rows, rows, width}; }
};

// Of a job's queries the first ones do the fetching.
[[gnu::always_inline]] inline Page KeysOf(const FoldJob& job, uint32_t page, uint32_t first) {
  const uint32_t width = job.key_order == KeyOrder::kByColumn ? kPageTokens : job.head_dim;
  return {job.keys[page], first == 0 ? job.ahead_keys[page] : job.keys[page], width};
}
// values: (kPageTokens, head_dim)
[[gnu::always_inline]] inline Page ValuesOf(const FoldJob& job, uint32_t page, uint32_t first) {
  return {job.values[page], first == 0 ? job.ahead_values[page] : job.values[page], job.head_dim};
}

// body(page, first query of a tile, queries in it, the positions [begin, end) of the page that any
// of them sees) for every page and tile of up to `width` queries that meet. Rows rise from query to
// query: the first sees the earliest position of a tile, the last the latest.
template <typename Body>
[[gnu::always_inline]] inline void ForEachTile(const FoldJob& job, uint32_t width, Body body) {
  const uint32_t most = job.counts[job.n_queries - 1];
  for (uint32_t page = job.firsts[0] / kPageTokens; page < kFoldPages && InPage(most, page) > 0;
       ++page) {
    for (uint32_t first = 0; first < job.n_queries; first += width) {
      const uint32_t left = job.n_queries - first;
      const uint32_t n = left < width ? left : width;
      const uint32_t begin = InPage(job.firsts[first], page);
      const uint32_t end = InPage(job.counts[first + n - 1], page);
      if (begin < end) body(page, first, n, begin, end);
    }
  }
}

// Cuts what the queries [first, first + n) see of a page into what each sees before all do, what
// all see together, and what each sees after: alone(query, begin, end) and together(begin, end),
// queries counted from `first`, ranges that may be empty. For every query the ranges come in order.
template <typename Alone, typename Together>
[[gnu::always_inline]] inline void CutByQueries(const FoldJob& job, uint32_t first, uint32_t n,
                                                uint32_t page, Alone alone, Together together) {
  uint32_t begin = 0;
  uint32_t end = kPageTokens;
  for (uint32_t q = first; q < first + n; ++q) {
    const uint32_t from = InPage(job.firsts[q], page);
    const uint32_t to = InPage(job.counts[q], page);
    begin = from > begin ? from : begin;
    end = to < end ? to : end;
  }
  // With a narrow window there may be no position that all see.
  end = end > begin ? end : begin;
  for (uint32_t q = 0; q < n; ++q) {
    const uint32_t to = InPage(job.counts[first + q], page);
    alone(q, InPage(job.firsts[first + q], page), to < begin ? to : begin);
  }
  together(begin, end);
  for (uint32_t q = 0; q < n; ++q) alone(q, end, InPage(job.counts[first + q], page));
}

}  // namespace
}  // namespace tandem::cpu
