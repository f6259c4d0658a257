#include "kernels/cpu/cpu_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tandem::cpu {
namespace {

constexpr uint64_t kLineFloats = 16;  // of a cache line
// Below this many multiply-adds the caller takes less time alone than with the team.
constexpr uint64_t kParallelWork = 60'000;
// Folds of a strip that threads compute before they are joined, at most: 16,384 positions.
constexpr uint32_t kFoldsApart = 64;
// From this many folds a thread on, whole folds are shared out evenly enough.
constexpr uint32_t kManyFolds = 4;

uint64_t RoundUp(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

// Whether items a and b of n, a first, lie in the shares of two threads (ThreadPool::RunShares).
bool SharesPart(uint32_t a, uint32_t b, uint32_t n, int threads, uint32_t grain) {
  for (int t = 1; t < threads; ++t) {
    const int64_t begin = SplitWork(n, t, threads, grain).begin;
    if (a < begin && begin <= b) return true;
  }
  return false;
}

float* AlignToLine(void* p) {
  return reinterpret_cast<float*>(RoundUp(reinterpret_cast<uintptr_t>(p), 64));
}

// m, l and o of up to `queries` queries, each on a cache line of its own.
uint64_t StateFloats(uint64_t queries, uint64_t head_dim) {
  return 2 * RoundUp(queries, kLineFloats) + RoundUp(queries * head_dim, kLineFloats);
}
FoldState StateAt(float* at, uint64_t queries) {
  const uint64_t lines = RoundUp(queries, kLineFloats);
  return {at, at + lines, at + 2 * lines};
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

void AttentionDriver::MakeTiles(const Call& call, std::span<const SequenceRows> sequences) {
  const uint32_t group = call.q_heads / call.kv->kv_heads;
  tiles_.clear();
  strips_.clear();
  work_ = 0;
  longest_ = 0;
  for (const SequenceRows& sequence : sequences) {
    const uint32_t queries = sequence.n_rows * group;
    for (uint32_t first = 0; first < queries; first += kMaxQueries) {
      const uint32_t n = std::min(kMaxQueries, queries - first);
      // From the fold that the first row sees to the last that the last row sees.
      const uint32_t first_position = sequence.start + first / group;
      const uint32_t last_position = sequence.start + (first + n - 1) / group;
      const uint32_t first_fold = FirstVisible(first_position, call.window) / kAttentionFold;
      const uint32_t needed = last_position / kAttentionFold + 1 - first_fold;
      strips_.push_back(Strip{static_cast<uint32_t>(tiles_.size()), first_fold, needed});
      longest_ = std::max(longest_, needed);
      for (uint32_t head = 0; head < call.kv->kv_heads; ++head) {
        tiles_.push_back(Tile{&sequence, head, first, n});
      }
      const uint64_t positions = last_position + 1 - first_fold * kAttentionFold;
      work_ += uint64_t{call.q_heads} / group * n * positions * 2 * call.kv->head_dim;
    }
  }
}

AttentionDriver::Next AttentionDriver::After(const Strip& strip, uint32_t fold) const {
  if (fold + 1 == strip.first_fold + strip.folds) return {};
  return {tiles_[strip.first_tile].sequence, fold + 1};
}

void AttentionDriver::RunFold(const Call& call, const Tile& tile, uint32_t fold, Next next,
                              const FoldState& state, float* scratch) const {
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
      state.l[i] = 0.0f;
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
  job.key_order = key_order_;
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
  job.m = state.m + skipped;
  job.l = state.l + skipped;
  job.o = state.o + uint64_t{skipped} * kv.head_dim;
  job.scratch = scratch;
  tier_.attend_fold(job);
}

void AttentionDriver::Join(const Tile& tile, uint32_t head_dim, const FoldState& state,
                           const FoldState& later) const {
  for (uint32_t i = 0; i < tile.n; ++i) {
    if (later.l[i] == 0.0f) continue;  // sees nothing of this fold
    const uint64_t at = uint64_t{i} * head_dim;
    if (state.l[i] == 0.0f) {
      state.m[i] = later.m[i];
      state.l[i] = later.l[i];
      std::memcpy(state.o + at, later.o + at, head_dim * sizeof(float));
      continue;
    }
    tier_.join_folds(FoldState{state.m + i, state.l + i, state.o + at},
                     FoldState{later.m + i, later.l + i, later.o + at}, head_dim);
  }
}

void AttentionDriver::Finish(const Call& call, const Tile& tile, const FoldState& state) const {
  const uint32_t hd = call.kv->head_dim;
  const uint32_t group = call.q_heads / call.kv->kv_heads;
  for (uint32_t i = 0; i < tile.n; ++i) {
    const uint32_t row = tile.sequence->first_row + (tile.first + i) / group;
    const uint32_t head = tile.kv_head * group + (tile.first + i) % group;
    float* to = call.out + (uint64_t{row} * call.q_heads + head) * hd;
    const float inverse = 1.0f / state.l[i];
    for (uint32_t d = 0; d < hd; ++d) to[d] = state.o[uint64_t{i} * hd + d] * inverse;
  }
}

void AttentionDriver::RunStrip(const Call& call, const Strip& strip, float* scratch) const {
  const uint32_t hd = call.kv->head_dim;
  const uint32_t heads = call.kv->kv_heads;
  const uint64_t floats = StateFloats(kMaxQueries, hd);
  float* states = scratch + RoundUp(FoldScratchFloats(hd), kLineFloats);
  const FoldState later = StateAt(states + heads * floats, kMaxQueries);
  for (uint32_t i = 0; i < strip.folds; ++i) {
    const uint32_t fold = strip.first_fold + i;
    const Next next = After(strip, fold);
    for (uint32_t head = 0; head < heads; ++head) {
      const Tile& tile = tiles_[strip.first_tile + head];
      const FoldState state = StateAt(states + head * floats, kMaxQueries);
      RunFold(call, tile, fold, next, i == 0 ? state : later, scratch);
      if (i > 0) Join(tile, hd, state, later);
    }
  }
  for (uint32_t head = 0; head < heads; ++head) {
    Finish(call, tiles_[strip.first_tile + head], StateAt(states + head * floats, kMaxQueries));
  }
}

uint32_t AttentionDriver::FoldsApart(const Call& call, const Strip& strip) const {
  const KvView& kv = *call.kv;
  const uint64_t lost =
      reinterpret_cast<uintptr_t>(AlignToLine(kv.room)) - reinterpret_cast<uintptr_t>(kv.room);
  if (kv.room_bytes < lost) return 0;
  const uint64_t floats = StateFloats(tiles_[strip.first_tile].n, kv.head_dim);
  const uint64_t states = (kv.room_bytes - lost) / (kv.kv_heads * floats * sizeof(float));
  if (states == 0) return 0;
  return static_cast<uint32_t>(std::min<uint64_t>(states - 1, std::min(strip.folds, kFoldsApart)));
}

void AttentionDriver::RunApart(const Call& call, const Strip& strip, uint32_t most, float* scratch,
                               uint64_t scratch_floats) {
  const uint32_t hd = call.kv->head_dim;
  const uint32_t heads = call.kv->kv_heads;
  const uint32_t n = tiles_[strip.first_tile].n;
  const uint64_t floats = StateFloats(n, hd);
  const auto threads = static_cast<uint32_t>(pool_.threads());
  float* partials = AlignToLine(call.kv->room);
  // Of fold i since the last join; the strip's own comes first.
  const auto state = [&](uint32_t i, uint32_t head) {
    return StateAt(partials + (uint64_t{i} * heads + head) * floats, n);
  };
  for (uint32_t done = 0; done < strip.folds; done += most) {
    const uint32_t count = std::min(most, strip.folds - done);
    const uint32_t items = count * heads;
    // The heads of a fold lie together: they are parted only where whole folds would be shared out
    // unevenly.
    const uint32_t grain = count < kManyFolds * threads ? 1 : heads;
    pool_.RunShares(items, {grain, heads}, [&](uint32_t begin, uint32_t end, int thread) {
      float* own = scratch + static_cast<uint64_t>(thread) * scratch_floats;
      for (uint32_t item = begin; item < end; ++item) {
        const uint32_t i = item / heads, head = item % heads;
        const uint32_t fold = strip.first_fold + done + i;
        // What another thread begins with, it has read by then.
        const bool parts = SharesPart(item, item + heads, items, pool_.threads(), grain);
        RunFold(call, tiles_[strip.first_tile + head], fold, parts ? Next{} : After(strip, fold),
                state(done + i == 0 ? 0 : i + 1, head), own);
      }
    });
    for (uint32_t i = done == 0 ? 1 : 0; i < count; ++i) {
      for (uint32_t head = 0; head < heads; ++head) {
        Join(tiles_[strip.first_tile + head], hd, state(0, head), state(i + 1, head));
      }
    }
  }
  for (uint32_t head = 0; head < heads; ++head) {
    Finish(call, tiles_[strip.first_tile + head], state(0, head));
  }
}

void AttentionDriver::Run(const float* q, uint32_t q_heads, uint32_t window,
                          std::span<const SequenceRows> sequences, const KvView& kv, float* out) {
  const Call call{q, q_heads, window, &kv, out};
  MakeTiles(call, sequences);
  if (strips_.empty()) return;

  const uint64_t part = RoundUp(FoldScratchFloats(kv.head_dim), kLineFloats) +
                        (kv.kv_heads + 1) * StateFloats(kMaxQueries, kv.head_dim);
  const auto threads = static_cast<uint64_t>(pool_.threads());
  scratch_.resize(threads * part + kLineFloats);
  float* scratch = AlignToLine(scratch_.data());

  if (work_ < kParallelWork) {
    for (const Strip& strip : strips_) RunStrip(call, strip, scratch);
    return;
  }
  // With few strips, threads share out folds, or their heads; else whole strips. Same bits either
  // way.
  if (strips_.size() < 2 * threads && threads > 1 && (longest_ > 1 || strips_.size() < threads)) {
    for (const Strip& strip : strips_) {
      const uint32_t most = FoldsApart(call, strip);
      if (most > 1 || most == strip.folds) {
        RunApart(call, strip, most, scratch, part);
      } else {
        RunStrip(call, strip, scratch);
      }
    }
    return;
  }
  pool_.RunTasks(static_cast<uint32_t>(strips_.size()), [&](uint32_t i, int thread) {
    // Late strips see the most positions: they go first.
    RunStrip(call, strips_[strips_.size() - 1 - i], scratch + static_cast<uint64_t>(thread) * part);
  });
}

}  // namespace tandem::cpu
