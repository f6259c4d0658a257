// What the kernels for many rows share: a block of eight warps takes eight panels (128 outputs) by
// 16 * kTiles tokens; warp w takes panels 2 (w % 4) and the next, and the first or the second half
// of the tokens, kTiles tiles of eight. Chains are walked one after the other, so an output is
// summed as by the kernels for few rows.
#pragma once

#include "kernels/cuda/weights.cuh"

namespace tandem::cuda {

inline constexpr uint32_t kTileThreads = 256;
inline constexpr uint32_t kTilePanels = 8;
inline constexpr uint32_t kWarpPanels = 2;

// The same call with first_panel and panels counted in tiles of kTilePanels.
inline MatMulCall InTiles(const MatMulCall& call) {
  MatMulCall tiled = call;
  tiled.panels = 0;
  for (uint32_t i = 0; i < call.n_parts; ++i) {
    MatMulPart& part = tiled.parts[i];
    const uint32_t panels = (part.row_end - 1) / kPanelRows - part.row_begin / kPanelRows + 1;
    part.first_panel = tiled.panels;
    tiled.panels += (panels + kTilePanels - 1) / kTilePanels;
  }
  return tiled;
}

// Where a warp of a block stands: the part, its panels and tokens.
template <uint32_t kTiles>
struct TilePlace {
  static constexpr uint32_t kTokens = 16 * kTiles;  // of the block

  const MatMulPart* part;
  uint32_t first_panel;  // the block's
  uint32_t last_panel;   // the part's
  uint32_t block_token;  // the block's first
  uint32_t warp_token;   // the warp's first, from there

  __device__ __forceinline__ explicit TilePlace(const MatMulCall& call) {
    uint32_t i = 0;
    while (i + 1 < call.n_parts && blockIdx.y >= call.parts[i + 1].first_panel) ++i;
    part = &call.parts[i];
    first_panel = part->row_begin / kPanelRows + (blockIdx.y - part->first_panel) * kTilePanels;
    last_panel = (part->row_end - 1) / kPanelRows;
    block_token = blockIdx.x * kTokens;
    warp_token = threadIdx.x / 128 * (8 * kTiles);
  }

  // Of the block's panels, the warp's p-th.
  __device__ __forceinline__ uint32_t WarpPanel(uint32_t p) const {
    return threadIdx.x / 32 % 4 * kWarpPanels + p;
  }
  // The block's panel i in the packed matrix. Panels past the part's last repeat it; their outputs
  // are not stored.
  __device__ __forceinline__ uint32_t Panel(uint32_t i) const {
    return first_panel + i < last_panel ? first_panel + i : last_panel;
  }
  // Tokens past the last one repeat it; their outputs are not stored.
  __device__ __forceinline__ uint64_t Token(const MatMulCall& call, uint32_t i) const {
    return block_token + i < call.n ? block_token + i : call.n - 1;
  }

  // Stores what a lane has of tokens 2t and 2t + 1 of a tile: outputs g and g + 8 of panel p.
  __device__ __forceinline__ void Store(const MatMulCall& call, uint32_t p, uint32_t tile,
                                        const float (&sums)[4]) const {
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const uint32_t panel = first_panel + WarpPanel(p);
    const uint32_t token = block_token + warp_token + 8 * tile + 2 * t;
#pragma unroll
    for (uint32_t r = 0; r < 2; ++r) {
      const uint32_t row = panel * kPanelRows + g + 8 * r;
      if (panel > last_panel || row < part->row_begin || row >= part->row_end) continue;
      float* y = part->y + (row - part->row_begin);
      if (call.row_parts == 2) {
        if (token < call.n) y[token / 2 * part->y_stride] = sums[2 * r] + sums[2 * r + 1];
        continue;
      }
      if (token < call.n) y[token * part->y_stride] = sums[2 * r];
      if (token + 1 < call.n) y[(token + 1) * part->y_stride] = sums[2 * r + 1];
    }
  }
};

// The groups of a slice in the order of the contract.
struct ChainWalk {
  uint32_t groups;
  uint32_t chain = 0;
  uint32_t group = 0;

  __device__ __forceinline__ bool Done() const { return group >= groups; }
  __device__ __forceinline__ ChainWalk Next() const {
    ChainWalk next = *this;
    next.group += kChains;
    if (next.group >= groups) {
      ++next.chain;
      next.group = next.chain < kChains ? next.chain : groups;
    }
    return next;
  }
  // Whether this group is the last of its chain.
  __device__ __forceinline__ bool EndsChain() const { return group + kChains >= groups; }
};

}  // namespace tandem::cuda
