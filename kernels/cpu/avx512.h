// The AVX-512 tiers: sixteen rows a panel, one f32 lane a row.
//
// "avx512" needs F, BW, DQ, VL and VNNI: int8 products are vpdpbusd, four columns of sixteen rows
// an instruction. "avx512_bf16" is the same table with BF16 products (vdpbf16ps) beside.
//
// Its files are compiled with those instructions and -ffp-contract=off: every fused multiply-add is
// one that the source names, so a loop rounds the same in every tiling. Helpers that two files
// share are in avx512_inline.h, with internal linkage (tier.h says why).
#pragma once

#include "kernels/cpu/tier.h"

namespace tandem::cpu::avx512 {

inline constexpr uint32_t kLanes = 16;

void MatMulInt8(const PanelJob& job);
void MatMulF32(const PanelJob& job);
void MatMulBf16(const PanelJob& job);

void Quantize(const float* x, uint64_t blocks, PreparedBlock* out);
void ToBf16(const float* x, uint64_t n, uint16_t* out);
void RmsNorm(const float* x, const float* w, float eps, uint64_t n, uint64_t hidden, float* y);
void Add(const float* x, const float* y, uint64_t n, float* out);
void SwiGlu(const float* gate, const float* up, uint64_t n, float* out);
void Rotate(const RotateJob& job);
void ToF16(const float* x, uint64_t n, uint16_t* out);

void AttendFold(const FoldJob& job);
void JoinFolds(const FoldState& state, const FoldState& later, uint64_t head_dim);

}  // namespace tandem::cpu::avx512
