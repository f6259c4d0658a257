#include "kernels/cpu/cpu_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tandem::cpu {
namespace {

constexpr uint64_t kLineFloats = 16;  // of a cache line
// Below this many multiply-adds the caller takes less time alone than with the team.
constexpr uint64_t kParallelWork = 200'000;

uint64_t RoundUp(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

float* AlignToLine(float* p) {
  return reinterpret_cast<float*>(RoundUp(reinterpret_cast<uintptr_t>(p), 64));
}

// The first position that the row at `position` sees.
uint32_t FirstVisible(uint32_t position, uint32_t window) {
  return window > 0 && window <= position ? position + 1 - window : 0;
}

// What the job fetches while it reads: its share, one of kv_heads, of the next fold's pages. Memory
// is fastest when read in order, and a page is in order only over all heads: so the shares follow
// each other there as the jobs of a fold's heads do, keys before values.
void FetchAhead(const KvView& kv, uint32_t kv_head, const int32_t* next_pages, uint32_t n_pages,
                FoldJob& job) {
  const uint64_t chunk = uint64_t{kPageTokens} * kv.head_dim;  // halves
  const uint32_t chunks = 2 * kv.kv_heads;                     // of a page
  for (uint32_t page = 0; page < kFoldPages; ++page) {
    const uint16_t** const ahead[2] = {&job.ahead_keys[page], &job.ahead_values[page]};
    const uint16_t* const own[2] = {job.keys[page], job.values[page]};
    for (uint32_t part = 0; part < 2; ++part) {
      const uint32_t at = (2 * kv_head + part) * kFoldPages + page;
      *ahead[part] = own[part];
      if (at / chunks >= n_pages) continue;
      const auto index = static_cast<uint64_t>(next_pages[at / chunks]);
      *ahead[part] =
          reinterpret_cast<const uint16_t*>(kv.base + index * kv.stride) + at % chunks * chunk;
    }
  }
}

}  // namespace

// m, l and o of a whole tile, each on a cache line of its own.
uint64_t AttentionDriver::StateFloats(uint32_t head_dim) const {
  return 2 * RoundUp(kMaxQueries, kLineFloats) +
         RoundUp(uint64_t{kMaxQueries} * head_dim, kLineFloats);
}

void AttentionDriver::MakeTiles(const Call& call, std::span<const SequenceRows> sequences) {
  const uint32_t group = call.q_heads / call.kv->kv_heads;
  tiles_.clear();
  strips_.clear();
  work_ = 0;
  uint64_t folds = 0;
  for (const SequenceRows& sequence : sequences) {
    const uint32_t queries = sequence.n_rows * group;
    for (uint32_t first = 0; first < queries; first += kMaxQueries) {
      const uint32_t n = std::min(kMaxQueries, queries - first);
      // From the fold that the first row sees to the last that the last row sees.
      const uint32_t first_position = sequence.start + first / group;
      const uint32_t last_position = sequence.start + (first + n - 1) / group;
      const uint32_t first_fold = FirstVisible(first_position, call.window) / kAttentionFold;
      const uint32_t needed = last_position / kAttentionFold + 1 - first_fold;
      strips_.push_back(Strip{static_cast<uint32_t>(tiles_.size()), first_fold, needed, folds});
      for (uint32_t head = 0; head < call.kv->kv_heads; ++head) {
        tiles_.push_back(Tile{&sequence, head, first, n});
      }
      folds += needed;
      work_ += uint64_t{call.q_heads} / group * n * needed * kAttentionFold * 2 * call.kv->head_dim;
    }
  }
}

AttentionDriver::Next AttentionDriver::After(const Strip& strip, uint32_t fold) const {
  if (fold + 1 < strip.first_fold + strip.folds) {
    return {tiles_[strip.first_tile].sequence, fold + 1};
  }
  if (&strip == &strips_.back()) return {};
  const Strip& next = *(&strip + 1);
  return {tiles_[next.first_tile].sequence, next.first_fold};
}

void AttentionDriver::RunFold(const Call& call, const Tile& tile, uint32_t fold, Next next,
                              float* m, float* l, float* o, float* scratch) const {
  const KvView& kv = *call.kv;
  const uint32_t group = call.q_heads / kv.kv_heads;
  const uint32_t begin = fold * kAttentionFold;
  const float* queries[kMaxQueries];
  uint32_t firsts[kMaxQueries];
  uint32_t counts[kMaxQueries];
  uint32_t skipped = 0;  // leading queries whose row lies before the fold
  uint32_t n = 0;        // queries after those; what follows has a window that begins after it
  for (uint32_t i = 0; i < tile.n; ++i) {
    const uint32_t row = (tile.first + i) / group;
    const uint32_t head = tile.kv_head * group + (tile.first + i) % group;
    const uint32_t position = tile.sequence->start + row;
    const uint32_t first = FirstVisible(position, call.window);
    if (position < begin || first >= begin + kAttentionFold) {
      l[i] = 0.0f;
      skipped += position < begin ? 1 : 0;
      continue;
    }
    const uint64_t at = (uint64_t{tile.sequence->first_row} + row) * call.q_heads + head;
    queries[n] = call.q + at * kv.head_dim;
    firsts[n] = first > begin ? first - begin : 0;
    counts[n] = std::min(position + 1 - begin, kAttentionFold);
    ++n;
  }
  if (n == 0) return;
  FoldJob job{.n_queries = n, .head_dim = kv.head_dim, .queries = queries};
  job.firsts = firsts;
  job.counts = counts;
  const uint64_t head_elems = uint64_t{kPageTokens} * kv.head_dim;
  for (uint32_t page = firsts[0] / kPageTokens; page * kPageTokens < counts[n - 1]; ++page) {
    const auto index = static_cast<uint64_t>(tile.sequence->pages[fold * kFoldPages + page]);
    const auto* base = reinterpret_cast<const uint16_t*>(kv.base + index * kv.stride);
    job.keys[page] = base + tile.kv_head * head_elems;
    job.values[page] = base + (uint64_t{kv.kv_heads} + tile.kv_head) * head_elems;
  }
  if (next.sequence == nullptr) next = {tile.sequence, fold};
  const SequenceRows& then = *next.sequence;
  const uint32_t positions = then.start + then.n_rows - next.fold * kAttentionFold;
  const uint32_t n_pages = std::min((positions + kPageTokens - 1) / kPageTokens, kFoldPages);
  FetchAhead(kv, tile.kv_head, then.pages + next.fold * kFoldPages, n_pages, job);
  job.scale = 1.0f / std::sqrt(static_cast<float>(kv.head_dim));
  job.m = m + skipped;
  job.l = l + skipped;
  job.o = o + uint64_t{skipped} * kv.head_dim;
  job.scratch = scratch;
  tier_.attend_fold(job);
}

void AttentionDriver::Join(const Tile& tile, uint32_t head_dim, float* const state[3],
                           float* const later[3]) const {
  for (uint32_t i = 0; i < tile.n; ++i) {
    if (later[1][i] == 0.0f) continue;  // sees nothing of this fold
    const uint64_t at = uint64_t{i} * head_dim;
    if (state[1][i] == 0.0f) {
      state[0][i] = later[0][i];
      state[1][i] = later[1][i];
      std::memcpy(state[2] + at, later[2] + at, head_dim * sizeof(float));
      continue;
    }
    tier_.join_folds(FoldState{state[0] + i, state[1] + i, state[2] + at},
                     FoldState{later[0] + i, later[1] + i, later[2] + at}, head_dim);
  }
}

void AttentionDriver::Finish(const Call& call, const Tile& tile, const float* l,
                             const float* o) const {
  const uint32_t hd = call.kv->head_dim;
  const uint32_t group = call.q_heads / call.kv->kv_heads;
  for (uint32_t i = 0; i < tile.n; ++i) {
    const uint32_t row = tile.sequence->first_row + (tile.first + i) / group;
    const uint32_t head = tile.kv_head * group + (tile.first + i) % group;
    float* to = call.out + (uint64_t{row} * call.q_heads + head) * hd;
    const float inverse = 1.0f / l[i];
    for (uint32_t d = 0; d < hd; ++d) to[d] = o[uint64_t{i} * hd + d] * inverse;
  }
}

void AttentionDriver::RunStrip(const Call& call, const Strip& strip, float* scratch) const {
  const uint32_t hd = call.kv->head_dim;
  const uint32_t heads = call.kv->kv_heads;
  const uint64_t lines = RoundUp(kMaxQueries, kLineFloats);
  float* states = scratch + RoundUp(FoldScratchFloats(hd), kLineFloats);
  float* spare = states + heads * StateFloats(hd);
  float* const later[3] = {spare, spare + lines, spare + 2 * lines};
  for (uint32_t i = 0; i < strip.folds; ++i) {
    const uint32_t fold = strip.first_fold + i;
    const Next next = After(strip, fold);
    for (uint32_t head = 0; head < heads; ++head) {
      const Tile& tile = tiles_[strip.first_tile + head];
      float* first = states + head * StateFloats(hd);
      float* const state[3] = {first, first + lines, first + 2 * lines};
      float* const* to = i == 0 ? state : later;
      RunFold(call, tile, fold, next, to[0], to[1], to[2], scratch);
      if (i > 0) Join(tile, hd, state, later);
    }
  }
  for (uint32_t head = 0; head < heads; ++head) {
    const float* state = states + head * StateFloats(hd);
    Finish(call, tiles_[strip.first_tile + head], state + lines, state + 2 * lines);
  }
}

void AttentionDriver::RunApart(const Call& call, uint32_t i, float* partials,
                               float* scratch) const {
  const uint32_t heads = call.kv->kv_heads;
  const uint64_t lines = RoundUp(kMaxQueries, kLineFloats);
  const auto after = std::upper_bound(strips_.begin(), strips_.end(), i,
                                      [](uint64_t v, const Strip& s) { return v < s.start; });
  const Strip& strip = *(after - 1);
  const uint32_t fold = strip.first_fold + static_cast<uint32_t>(i - strip.start);
  const Next next = After(strip, fold);
  for (uint32_t head = 0; head < heads; ++head) {
    float* state = partials + (uint64_t{i} * heads + head) * StateFloats(call.kv->head_dim);
    RunFold(call, tiles_[strip.first_tile + head], fold, next, state, state + lines,
            state + 2 * lines, scratch);
  }
}

void AttentionDriver::Run(const float* q, uint32_t q_heads, uint32_t window,
                          std::span<const SequenceRows> sequences, const KvView& kv, float* out) {
  const Call call{q, q_heads, window, &kv, out};
  const uint32_t hd = kv.head_dim;
  MakeTiles(call, sequences);
  if (strips_.empty()) return;

  const uint64_t state_floats = StateFloats(hd);
  const uint64_t part =
      RoundUp(FoldScratchFloats(hd), kLineFloats) + (kv.kv_heads + 1) * state_floats;
  const auto threads = static_cast<uint64_t>(pool_.threads());
  scratch_.resize(threads * part + kLineFloats);
  float* scratch = AlignToLine(scratch_.data());

  if (work_ < kParallelWork) {
    for (const Strip& strip : strips_) RunStrip(call, strip, scratch);
    return;
  }
  // With few strips, threads share out single folds; else whole strips. Same bits either way.
  const uint64_t folds = strips_.back().start + strips_.back().folds;
  const bool apart = strips_.size() < 2 * threads && folds > strips_.size() && threads > 1;
  if (!apart) {
    pool_.RunTasks(static_cast<uint32_t>(strips_.size()), [&](uint32_t i, int thread) {
      // Late strips see the most positions: they go first.
      RunStrip(call, strips_[strips_.size() - 1 - i],
               scratch + static_cast<uint64_t>(thread) * part);
    });
    return;
  }

  partials_.resize(folds * kv.kv_heads * state_floats + kLineFloats);
  float* partials = AlignToLine(partials_.data());
  pool_.RunShares(static_cast<uint32_t>(folds), 1, [&](uint32_t begin, uint32_t end, int thread) {
    for (uint32_t i = begin; i < end; ++i) {
      RunApart(call, i, partials, scratch + static_cast<uint64_t>(thread) * part);
    }
  });
  const uint64_t lines = RoundUp(kMaxQueries, kLineFloats);
  for (const Strip& strip : strips_) {
    for (uint32_t head = 0; head < kv.kv_heads; ++head) {
      const Tile& tile = tiles_[strip.first_tile + head];
      const auto at = [&](uint32_t fold) {
        return partials + ((strip.start + fold) * kv.kv_heads + head) * state_floats;
      };
      float* const state[3] = {at(0), at(0) + lines, at(0) + 2 * lines};
      for (uint32_t fold = 1; fold < strip.folds; ++fold) {
        float* const later[3] = {at(fold), at(fold) + lines, at(fold) + 2 * lines};
        Join(tile, hd, state, later);
      }
      Finish(call, tile, state[1], state[2]);
    }
  }
}

}  // namespace tandem::cpu
