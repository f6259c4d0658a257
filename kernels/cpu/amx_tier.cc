// The table of the AMX tier and whether this process may use it. Compiled for the baseline: it runs
// before the processor is known.
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/cpu/amx.h"

namespace tandem::cpu {
namespace {

// CPUID leaf 7: AMX-BF16, AMX-TILE, AMX-INT8 in EDX; leaf 1D, 1: what palette 1 offers.
bool ProcessorHasTiles() {
  constexpr unsigned kWanted = 1u << 22 | 1u << 24 | 1u << 25;
  unsigned a, b, c, d;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kWanted) != kWanted) return false;
  if (__get_cpuid_count(0x1d, 1, &a, &b, &c, &d) == 0) return false;
  const unsigned row_bytes = b & 0xffff, tiles = b >> 16, rows = c & 0xffff;
  return row_bytes >= 64 && tiles >= 8 && rows >= 16;
}

// XCR0: the operating system saves the tiles' configuration (17) and their data (18).
bool SystemSavesTiles() {
  constexpr unsigned kSaved = 3u << 17;
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0) return false;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kSaved) == kSaved;
}

// Linux gives a process the tiles' state when it asks, for all its threads.
bool AskForTiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool HasAmx() {
  static const bool has =
      Avx512Bf16Tier().supported() && ProcessorHasTiles() && SystemSavesTiles() && AskForTiles();
  return has;
}

Tier WithTiles(Tier tier) {
  tier.name = "amx";
  tier.supported = HasAmx;
  tier.matmul_int8 = amx::MatMulInt8;
  tier.matmul_bf16 = amx::MatMulBf16;
  return tier;
}

}  // namespace

const Tier& AmxTier() {
  static const Tier tier = WithTiles(Avx512Bf16Tier());
  return tier;
}

}  // namespace tandem::cpu
