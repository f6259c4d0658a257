// The AVX2 tier's table. Compiled for the baseline: it runs before the processor is known.
#include "kernels/cpu/avx2.h"

namespace tandem::cpu {

const Tier& Avx2Tier() {
  static constexpr Tier kTier = {
      .name = "avx2",
      .supported =
          [] {
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                   __builtin_cpu_supports("f16c");
          },
      .lanes = avx2::kLanes,
      .bf16_pairs = false,
      .quantize = avx2::Quantize,
      .to_bf16 = nullptr,
      .matmul_int8 = avx2::MatMulInt8,
      .matmul_f32 = avx2::MatMulF32,
      .matmul_bf16 = nullptr,
      .rms_norm = avx2::RmsNorm,
      .add = avx2::Add,
      .swiglu = avx2::SwiGlu,
      .rotate = avx2::Rotate,
      .to_f16 = avx2::ToF16,
      .attend_fold = avx2::AttendFold,
      .join_folds = avx2::JoinFolds,
  };
  return kTier;
}

}  // namespace tandem::cpu
