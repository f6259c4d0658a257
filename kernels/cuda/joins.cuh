// How the eight chains of a product's outputs are joined and stored by the small-batch kernels.
#pragma once

#include "kernels/cuda/weights.cuh"

namespace tandem::cuda {

// Floats of shared memory that a block of kChains warps needs for kTokens tokens.
constexpr uint32_t JoinFloats(uint32_t tokens) { return kChains * tokens * kPanelRows; }

// An output's chains in order, from zero; `partial` at its token and row.
template <uint32_t kTokens>
__device__ __forceinline__ float SumChains(const float* partial) {
  float total = 0.0f;
#pragma unroll
  for (uint32_t chain = 0; chain < kChains; ++chain) {
    total += partial[chain * kTokens * kPanelRows];
  }
  return total;
}

// partial (chain, token, row 16). Stores the outputs of panel `panel` for tokens [token, token +
// kTokens) that exist; two parts of a row give one output. Called by all threads of the block.
template <uint32_t kTokens>
__device__ __forceinline__ void JoinChains(const MatMulCall& call, const MatMulPart& part,
                                           uint32_t panel, uint32_t token, const float* partial) {
  __syncthreads();  // every chain is written
  for (uint32_t i = threadIdx.x; i < kTokens / call.row_parts * kPanelRows; i += blockDim.x) {
    const uint32_t row = panel * kPanelRows + i % kPanelRows;
    const uint32_t own = i / kPanelRows * call.row_parts;  // of the tokens here
    if (token + own >= call.n || row < part.row_begin || row >= part.row_end) continue;
    const float* at = partial + own * kPanelRows + i % kPanelRows;
    float total = SumChains<kTokens>(at);
    if (call.row_parts == 2) total += SumChains<kTokens>(at + kPanelRows);
    const uint64_t to = (token + own) / call.row_parts;
    part.y[to * part.y_stride + row - part.row_begin] = total;
  }
}

// A lane's accumulators of one tensor-core tile: rows g and g + 8, tokens 2t and 2t + 1.
__device__ __forceinline__ void StoreTile(const float (&acc)[4], uint32_t lane, float* tile) {
  const uint32_t g = lane / 4, t = lane % 4;
  tile[2 * t * kPanelRows + g] = acc[0];
  tile[(2 * t + 1) * kPanelRows + g] = acc[1];
  tile[2 * t * kPanelRows + g + 8] = acc[2];
  tile[(2 * t + 1) * kPanelRows + g + 8] = acc[3];
}

// The same of four tokens of two columns each: rows g and g + 8, token t.
__device__ __forceinline__ void StoreFew(const float (&acc)[4], uint32_t lane, float* tile) {
  tile[lane % 4 * kPanelRows + lane / 4] = acc[0];
  tile[lane % 4 * kPanelRows + lane / 4 + 8] = acc[2];
}

}  // namespace tandem::cuda
