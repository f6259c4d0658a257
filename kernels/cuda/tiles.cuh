// What the kernels for many rows share: a block of eight warps takes eight panels (128 outputs) by
// 128 tokens; warp w takes panels 2 (w % 4) and the next, and tokens 64 (w / 4) and on. Chains are
// walked one after the other, so an output is summed as by the kernels for few rows.
#pragma once

#include "kernels/cuda/weights.cuh"

namespace tandem::cuda {

inline constexpr uint32_t kTileThreads = 256;
inline constexpr uint32_t kTilePanels = 8;
inline constexpr uint32_t kTileTokens = 128;
inline constexpr uint32_t kWarpPanels = 2;
inline constexpr uint32_t kWarpTiles = 8;  // of eight tokens

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
struct TilePlace {
  const MatMulPart* part;
  uint32_t panels[kWarpPanels];  // clamped to the part's last: outputs past it are not stored
  bool real[kWarpPanels];
  uint32_t block_token;  // the block's first
  uint32_t warp_token;   // the warp's first, from there

  __device__ __forceinline__ explicit TilePlace(const MatMulCall& call) {
    uint32_t i = 0;
    while (i + 1 < call.n_parts && blockIdx.y >= call.parts[i + 1].first_panel) ++i;
    part = &call.parts[i];
    const uint32_t warp = threadIdx.x / 32;
    const uint32_t first = part->row_begin / kPanelRows +
                           (blockIdx.y - part->first_panel) * kTilePanels + warp % 4 * kWarpPanels;
    const uint32_t last = (part->row_end - 1) / kPanelRows;
#pragma unroll
    for (uint32_t p = 0; p < kWarpPanels; ++p) {
      real[p] = first + p <= last;
      panels[p] = real[p] ? first + p : last;
    }
    block_token = blockIdx.x * kTileTokens;
    warp_token = warp / 4 * (8 * kWarpTiles);
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
};

// A warp's sums: of the chain under way, and of the chains before.
struct TileSums {
  float chain[kWarpPanels][kWarpTiles][4] = {};
  float total[kWarpPanels][kWarpTiles][4] = {};

  __device__ __forceinline__ void EndChain() {
#pragma unroll
    for (uint32_t p = 0; p < kWarpPanels; ++p) {
#pragma unroll
      for (uint32_t tile = 0; tile < kWarpTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          total[p][tile][i] += chain[p][tile][i];
          chain[p][tile][i] = 0.0f;
        }
      }
    }
  }

  __device__ __forceinline__ void Store(const MatMulCall& call, const TilePlace& place) const {
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const MatMulPart& part = *place.part;
#pragma unroll
    for (uint32_t p = 0; p < kWarpPanels; ++p) {
#pragma unroll
      for (uint32_t tile = 0; tile < kWarpTiles; ++tile) {
        const uint32_t token = place.block_token + place.warp_token + 8 * tile + 2 * t;
#pragma unroll
        for (uint32_t r = 0; r < 2; ++r) {
          const uint32_t row = place.panels[p] * kPanelRows + g + 8 * r;
          if (!place.real[p] || row < part.row_begin || row >= part.row_end) continue;
          float* y = part.y + (row - part.row_begin);
          const float first = total[p][tile][2 * r], second = total[p][tile][2 * r + 1];
          if (call.row_parts == 2) {
            if (token < call.n) y[token / 2 * part.y_stride] = first + second;
            continue;
          }
          if (token < call.n) y[token * part.y_stride] = first;
          if (token + 1 < call.n) y[(token + 1) * part.y_stride] = second;
        }
      }
    }
  }
};

}  // namespace tandem::cuda
