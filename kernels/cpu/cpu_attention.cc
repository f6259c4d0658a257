#include "kernels/cpu/cpu_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tandem::cpu {
namespace {

constexpr uint64_t kLineFloats = 16;  // of a cache line

uint64_t RoundUp(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

float* AlignToLine(float* p) {
  return reinterpret_cast<float*>(RoundUp(reinterpret_cast<uintptr_t>(p), 64));
}

// The first position that the row at `position` sees.
uint32_t FirstVisible(uint32_t position, uint32_t window) {
  return window > 0 && window <= position ? position + 1 - window : 0;
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
  uint64_t folds = 0;
  for (const SequenceRows& sequence : sequences) {
    const uint32_t queries = sequence.n_rows * group;
    for (uint32_t head = 0; head < call.kv->kv_heads; ++head) {
      for (uint32_t first = 0; first < queries; first += kMaxQueries) {
        const uint32_t n = std::min(kMaxQueries, queries - first);
        const uint32_t first_position = sequence.start + first / group;
        const uint32_t last_position = sequence.start + (first + n - 1) / group;
        const uint32_t first_fold = FirstVisible(first_position, call.window) / kAttentionFold;
        const uint32_t needed = last_position / kAttentionFold + 1 - first_fold;
        tiles_.push_back(Tile{&sequence, head, first, n, first_fold, needed, folds});
        folds += needed;
      }
    }
  }
}

void AttentionDriver::RunFold(const Call& call, const Tile& tile, uint32_t fold, float* m, float* l,
                              float* o, float* scratch) const {
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

void AttentionDriver::RunTile(const Call& call, const Tile& tile, float* scratch) const {
  const uint32_t hd = call.kv->head_dim;
  const uint64_t lines = RoundUp(kMaxQueries, kLineFloats);
  float* first = scratch + RoundUp(FoldScratchFloats(hd), kLineFloats);
  float* second = first + StateFloats(hd);
  float* const state[3] = {first, first + lines, first + 2 * lines};
  float* const later[3] = {second, second + lines, second + 2 * lines};
  RunFold(call, tile, tile.first_fold, state[0], state[1], state[2], scratch);
  for (uint32_t fold = 1; fold < tile.folds; ++fold) {
    RunFold(call, tile, tile.first_fold + fold, later[0], later[1], later[2], scratch);
    Join(tile, hd, state, later);
  }
  Finish(call, tile, state[1], state[2]);
}

void AttentionDriver::Run(const float* q, uint32_t q_heads, uint32_t window,
                          std::span<const SequenceRows> sequences, const KvView& kv, float* out) {
  const Call call{q, q_heads, window, &kv, out};
  const uint32_t hd = kv.head_dim;
  MakeTiles(call, sequences);
  if (tiles_.empty()) return;

  const uint64_t state_floats = StateFloats(hd);
  const uint64_t part = RoundUp(FoldScratchFloats(hd), kLineFloats) + 2 * state_floats;
  const auto threads = static_cast<uint64_t>(pool_.threads());
  scratch_.resize(threads * part + kLineFloats);
  float* scratch = AlignToLine(scratch_.data());

  // With few tiles, threads share out single folds; else whole tiles. Same bits either way.
  const uint64_t folds = tiles_.back().partials + tiles_.back().folds;
  const bool apart = tiles_.size() < 2 * threads && folds > tiles_.size() && threads > 1;
  if (!apart) {
    pool_.RunTasks(static_cast<uint32_t>(tiles_.size()), [&](uint32_t i, int thread) {
      // Late tiles see the most positions: they go first.
      RunTile(call, tiles_[tiles_.size() - 1 - i], scratch + static_cast<uint64_t>(thread) * part);
    });
    return;
  }

  partials_.resize(folds * state_floats + kLineFloats);
  float* partials = AlignToLine(partials_.data());
  const uint64_t lines = RoundUp(kMaxQueries, kLineFloats);
  pool_.RunTasks(static_cast<uint32_t>(folds), [&](uint32_t i, int thread) {
    const auto after = std::upper_bound(tiles_.begin(), tiles_.end(), i,
                                        [](uint64_t v, const Tile& t) { return v < t.partials; });
    const Tile& tile = *(after - 1);
    float* state = partials + i * state_floats;
    const auto fold = tile.first_fold + static_cast<uint32_t>(i - tile.partials);
    RunFold(call, tile, fold, state, state + lines, state + 2 * lines,
            scratch + static_cast<uint64_t>(thread) * part);
  });
  for (const Tile& tile : tiles_) {
    float* first = partials + tile.partials * state_floats;
    float* const state[3] = {first, first + lines, first + 2 * lines};
    for (uint32_t fold = 1; fold < tile.folds; ++fold) {
      float* second = first + fold * state_floats;
      float* const later[3] = {second, second + lines, second + 2 * lines};
      Join(tile, hd, state, later);
    }
    Finish(call, tile, state[1], state[2]);
  }
}

}  // namespace tandem::cpu
