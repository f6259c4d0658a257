// The AMX tier: the AVX-512 tiers with the products of many tokens, and all those of BF16, on the
// processor's tiles (eight registers of up to sixteen rows by 64 bytes).
//
// It needs what "avx512_bf16" needs, AMX's tiles with int8 and BF16 products, and a kernel that
// lends a process the tiles' 8 KiB of state on request. Panels, quantised rows and everything that
// is no product are the AVX-512 tiers' own. int8 products give the bits of those tiers; BF16 ones
// do not, and so they run on tiles for any number of tokens.
#pragma once

#include "kernels/cpu/avx512.h"

namespace tandem::cpu {

const Tier& AmxTier();

namespace amx {

void MatMulInt8(const PanelJob& job);
void MatMulBf16(const PanelJob& job);

}  // namespace amx
}  // namespace tandem::cpu
