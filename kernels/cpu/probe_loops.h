// Loops that show what this processor can do at most: what a probe runs beside the kernels, so that
// their speed can be told as a share of it. probe_x86.cc, or probe_generic.cc where CMake finds
// another processor.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem {

// What is multiplied: the instructions that the kernels spend their time in.
enum class ArithmeticKind : uint8_t { kF32, kInt8, kBf16 };

struct ProbeLoops {
  // Reads `bytes` (a multiple of 512) from 64-byte aligned memory; the result depends on all of it.
  uint64_t (*read)(const std::byte* data, size_t bytes);
  // Runs `iterations` of a loop of independent multiply-adds held in registers.
  uint64_t (*arithmetic)(uint64_t iterations);
  double ops_per_iteration;  // a multiply-add counts as two
};

// The widest that this processor has.
ProbeLoops BestProbeLoops(ArithmeticKind kind);

}  // namespace tandem
