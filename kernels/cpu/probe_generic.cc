// Probe loops without intrinsics: what the compiler makes of plain code.
#include <array>
#include <cstring>

#include "kernels/cpu/probe_loops.h"

namespace tandem {
namespace {

uint64_t Read(const std::byte* data, size_t bytes) {
  std::array<uint64_t, 8> sums{};
  for (size_t at = 0; at + 64 <= bytes; at += 64) {
    std::array<uint64_t, 8> words;
    std::memcpy(words.data(), data + at, 64);
    for (size_t i = 0; i < 8; ++i) sums[i] += words[i];
  }
  uint64_t sum = 0;
  for (uint64_t s : sums) sum += s;
  return sum;
}

uint64_t Arithmetic(uint64_t iterations) {
  std::array<float, 32> acc;
  acc.fill(0.5f);
  for (uint64_t i = 0; i < iterations; ++i) {
    for (float& a : acc) a = a * 0.999f + 0.25f;
  }
  uint64_t sum = 0;
  for (float a : acc) sum += static_cast<uint64_t>(a);
  return sum;
}

}  // namespace

ProbeLoops BestProbeLoops(ArithmeticKind) { return {Read, Arithmetic, 2.0 * 32}; }

}  // namespace tandem
