// The tiles of AMX in software, one set a thread: what each instruction is documented to do, checks
// included. An instruction that a processor would refuse ends the process with the reason.
//
// Called from a signal handler (amx_emulated.cc): no allocation, no locks.
#pragma once

#include <cstdint>

namespace tandem {

class TileMachine {
 public:
  void LoadConfig(const void* config);  // ldtilecfg
  void Release();                       // tilerelease
  void Zero(int tile);                  // tilezero
  void Load(int tile, const void* at, int64_t stride);
  void Store(int tile, void* at, int64_t stride);
  void DotInt8(int c, int a, int b);  // tdpbssd
  void DotBf16(int c, int a, int b);  // tdpbf16ps

  // Between a configuration and its release.
  bool configured() const { return configured_; }

 private:
  static constexpr int kTiles = 8;
  static constexpr uint32_t kRows = 16;
  static constexpr uint32_t kRowBytes = 64;

  struct Tile {
    uint32_t rows = 0;
    uint32_t row_bytes = 0;
    uint8_t data[kRows][kRowBytes] = {};
  };

  Tile& Usable(int tile, const char* op);
  void CheckDot(const Tile& c, const Tile& a, const Tile& b, const char* op) const;

  bool configured_ = false;
  Tile tiles_[kTiles];
};

// Writes the reason to standard error and aborts.
[[noreturn]] void TileFault(const char* op, const char* reason);

}  // namespace tandem
