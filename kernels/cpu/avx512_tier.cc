// The tables of the AVX-512 tiers. Compiled for the baseline: they run before the processor is
// known.
#include "kernels/cpu/avx512.h"

namespace tandem::cpu {
namespace {

bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

constexpr Tier kAvx512 = {
    .name = "avx512",
    .supported = HasAvx512,
    .lanes = avx512::kLanes,
    .bf16_pairs = true,
    .quantize = avx512::Quantize,
    .to_bf16 = nullptr,
    .matmul_int8 = avx512::MatMulInt8,
    .matmul_f32 = avx512::MatMulF32,
    .matmul_bf16 = nullptr,
    .rms_norm = avx512::RmsNorm,
    .add = avx512::Add,
    .swiglu = avx512::SwiGlu,
    .rotate = avx512::Rotate,
    .to_f16 = avx512::ToF16,
    .attend_fold = avx512::AttendFold,
    .join_folds = avx512::JoinFolds,
};

constexpr Tier WithBf16(Tier tier) {
  tier.name = "avx512_bf16";
  tier.supported = [] { return HasAvx512() && __builtin_cpu_supports("avx512bf16"); };
  tier.to_bf16 = avx512::ToBf16;
  tier.matmul_bf16 = avx512::MatMulBf16;
  return tier;
}

}  // namespace

const Tier& Avx512Tier() { return kAvx512; }

const Tier& Avx512Bf16Tier() {
  static constexpr Tier kTier = WithBf16(kAvx512);
  return kTier;
}

}  // namespace tandem::cpu
