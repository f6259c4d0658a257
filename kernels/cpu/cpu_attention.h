// Cuts attention into folds of 256 positions and tiles of queries for a tier's kernels, over
// threads. The result of a query depends on its own sequence alone: each fold is computed by itself
// and folds are joined in order, whoever computed them.
//
// Thread rule: one call at a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/device/cpu/thread_pool.h"
#include "kernels/cpu/tier.h"

namespace tandem::cpu {

class AttentionDriver {
 public:
  AttentionDriver(ThreadPool& pool, const Tier& tier) : pool_(pool), tier_(tier) {}

  // See Ops::Attention.
  void Run(const float* q, uint32_t q_heads, uint32_t window,
           std::span<const SequenceRows> sequences, const KvView& kv, float* out);

 private:
  // Up to kMaxQueries neighbouring queries (row by row, head by head) of one sequence and KV head.
  struct Tile {
    const SequenceRows* sequence;
    uint32_t kv_head;
    uint32_t first;  // query index in the sequence: row * group + head in group
    uint32_t n;
    uint32_t first_fold;  // that its first row sees
    uint32_t folds;       // from there to the last that its last row sees
    uint64_t partials;    // where its folds' states start, when folds are computed apart
  };
  struct Call {
    const float* q;
    uint32_t q_heads;
    uint32_t window;  // 0: none
    const KvView* kv;
    float* out;
  };

  void MakeTiles(const Call& call, std::span<const SequenceRows> sequences);
  // Folds of a tile one after the other, joined as they come.
  void RunTile(const Call& call, const Tile& tile, float* scratch) const;
  // One fold of a tile into m, l (n) and o (n, head_dim). Queries that see nothing of it are left
  // out and get l = 0.
  void RunFold(const Call& call, const Tile& tile, uint32_t fold, float* m, float* l, float* o,
               float* scratch) const;
  // The first fold that a query sees is its state; later ones are joined to it.
  void Join(const Tile& tile, uint32_t head_dim, float* const state[3],
            float* const later[3]) const;
  void Finish(const Call& call, const Tile& tile, const float* l, const float* o) const;
  uint64_t StateFloats(uint32_t head_dim) const;

  ThreadPool& pool_;
  const Tier& tier_;
  std::vector<Tile> tiles_;
  std::vector<float> scratch_;   // a part for each thread
  std::vector<float> partials_;  // states of folds computed apart
};

}  // namespace tandem::cpu
