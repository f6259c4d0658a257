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
  AttentionDriver(ThreadPool& pool, const Tier& tier, KeyOrder key_order)
      : pool_(pool), tier_(tier), key_order_(key_order) {}

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
  };
  struct Call {
    const float* q;
    uint32_t q_heads;
    uint32_t window;  // 0: none
    const KvView* kv;
    float* out;
  };

  // The tiles of all KV heads with the same queries of one sequence: consecutive in tiles_. They
  // see the same folds, and a page holds what all of them read of it.
  struct Strip {
    uint32_t first_tile;
    uint32_t first_fold;
    uint32_t folds;
  };
  // A fold that will be read; none after a strip's last.
  struct Next {
    const SequenceRows* sequence = nullptr;
    uint32_t fold = 0;
  };

  void MakeTiles(const Call& call, std::span<const SequenceRows> sequences);
  Next After(const Strip& strip, uint32_t fold) const;
  // Folds of a strip one after the other, joined as they come.
  void RunStrip(const Call& call, const Strip& strip, float* scratch) const;
  // How many of the strip's folds the threads may compute before they are joined: what the call's
  // room has space for, besides their sum.
  uint32_t FoldsApart(const Call& call, const Strip& strip) const;
  // The same with its folds, or the heads of its folds, shared out among the threads, each with
  // scratch_floats of `scratch`.
  void RunApart(const Call& call, const Strip& strip, uint32_t most, float* scratch,
                uint64_t scratch_floats);
  // One fold of a tile into a state of m, l (n) and o (n, head_dim). Queries that see nothing of it
  // are left out and get l = 0.
  void RunFold(const Call& call, const Tile& tile, uint32_t fold, Next next, const FoldState& state,
               float* scratch) const;
  // The first fold that a query sees is its state; later ones are joined to it.
  void Join(const Tile& tile, uint32_t head_dim, const FoldState& state,
            const FoldState& later) const;
  void Finish(const Call& call, const Tile& tile, const FoldState& state) const;

  ThreadPool& pool_;
  const Tier& tier_;
  const KeyOrder key_order_;
  std::vector<Tile> tiles_;
  std::vector<Strip> strips_;
  uint64_t work_ = 0;     // multiply-adds of all tiles, at most
  uint32_t longest_ = 0;  // folds of a strip, at most
  // A part for each thread. It is the team's, whichever device's attention it computes, and grows
  // with widths of heads alone; no device's memory table has it.
  std::vector<float> scratch_;
};

}  // namespace tandem::cpu
