#include "tests/kernels/amx_emulated.h"

#include <signal.h>
#include <ucontext.h>

#include <cstdint>
#include <cstring>

#include "kernels/cpu/amx.h"
#include "tests/kernels/tile_machine.h"

namespace tandem {
namespace {

thread_local TileMachine tiles;

// A tile instruction: VEX with three bytes, opcode map 0F38, operands in registers or in memory.
struct Instruction {
  uint8_t opcode;
  uint8_t prefix;   // 0: none, 1: 66, 2: F3, 3: F2
  bool memory;      // whether there is an address
  int reg;          // ModRM.reg
  int rm;           // ModRM.rm, where no address
  int vvvv;         // the third operand
  uint64_t base;    // of the address, displacement included
  uint64_t stride;  // the scaled index
  uint64_t bytes;   // its length
};

uint64_t Register(const ucontext_t& context, int number) {
  static constexpr int kOrder[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                     REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                     REG_R12, REG_R13, REG_R14, REG_R15};
  return static_cast<uint64_t>(context.uc_mcontext.gregs[kOrder[number]]);
}

int64_t Displacement(const uint8_t* at, uint64_t bytes) {
  if (bytes == 0) return 0;
  if (bytes == 1) return static_cast<int8_t>(*at);
  int32_t value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// The address of a ModRM byte at `at`, which follows the opcode at code[3].
void DecodeAddress(const ucontext_t& context, const uint8_t* code, Instruction& out) {
  const int high_index = (code[1] & 0x40) == 0 ? 8 : 0, high_base = (code[1] & 0x20) == 0 ? 8 : 0;
  const int mode = code[4] >> 6, rm = code[4] & 7;
  const uint8_t* at = code + 5;
  uint64_t displacement_bytes = mode == 1 ? 1 : mode == 2 ? 4 : 0;
  bool from_next = false;
  out.base = 0;
  if (rm == 4) {
    const int scale = *at >> 6, index = (*at >> 3 & 7) | high_index, base = *at & 7;
    ++at;
    if (index != 4) out.stride = Register(context, index) << scale;
    if (base == 5 && mode == 0) {
      displacement_bytes = 4;
    } else {
      out.base = Register(context, base | high_base);
    }
  } else if (rm == 5 && mode == 0) {
    displacement_bytes = 4;
    from_next = true;
  } else {
    out.base = Register(context, rm | high_base);
  }
  out.base += static_cast<uint64_t>(Displacement(at, displacement_bytes));
  at += displacement_bytes;
  out.bytes = static_cast<uint64_t>(at - code);
  if (from_next) out.base += reinterpret_cast<uint64_t>(at);
}

// False for anything else than a VEX instruction of map 0F38.
bool Decode(const ucontext_t& context, Instruction& out) {
  const auto* code = reinterpret_cast<const uint8_t*>(context.uc_mcontext.gregs[REG_RIP]);
  if (code[0] != 0xc4 || (code[1] & 0x1f) != 2) return false;
  out = Instruction{.opcode = code[3]};
  out.prefix = code[2] & 3;
  out.vvvv = ~(code[2] >> 3) & 15;
  out.memory = code[4] >> 6 != 3;
  out.reg = code[4] >> 3 & 7;
  out.rm = code[4] & 7;
  out.bytes = 5;
  if (out.memory) DecodeAddress(context, code, out);
  return true;
}

bool Execute(const Instruction& i) {
  auto* at = reinterpret_cast<void*>(i.base);
  const auto stride = static_cast<int64_t>(i.stride);
  const int kind = i.opcode << 8 | i.prefix << 4 | (i.memory ? 1 : 0);
  switch (kind) {
    case 0x4901:
      tiles.LoadConfig(static_cast<const uint8_t*>(at) + i.stride);
      return true;
    case 0x4900:
      tiles.Release();
      return true;
    case 0x4930:
      tiles.Zero(i.reg);
      return true;
    case 0x4b31:
      tiles.Load(i.reg, at, stride);
      return true;
    case 0x4b21:
      tiles.Store(i.reg, at, stride);
      return true;
    case 0x5e30:
      tiles.DotInt8(i.reg, i.rm, i.vvvv);
      return true;
    case 0x5c20:
      tiles.DotBf16(i.reg, i.rm, i.vvvv);
      return true;
    default:
      return false;
  }
}

void OnIllegalInstruction(int signal, siginfo_t*, void* context) {
  auto& state = *static_cast<ucontext_t*>(context);
  bool ours = false;
  // Those that follow at once are done too: entering the handler takes longer than most of them.
  for (Instruction i; Decode(state, i) && Execute(i); ours = true) {
    state.uc_mcontext.gregs[REG_RIP] += static_cast<greg_t>(i.bytes);
  }
  // Not one of ours: it comes again, and ends the process.
  if (!ours) ::signal(signal, SIG_DFL);
}

bool Install() {
  struct sigaction action = {};
  action.sa_sigaction = OnIllegalInstruction;
  action.sa_flags = SA_SIGINFO;
  return sigaction(SIGILL, &action, nullptr) == 0;
}

// A product that leaves its thread's tiles configured makes every later switch of threads slower.
void MatMulInt8(const cpu::PanelJob& job) {
  cpu::amx::MatMulInt8(job);
  if (tiles.configured()) TileFault("the int8 product", "its tiles were not released");
}
void MatMulBf16(const cpu::PanelJob& job) {
  cpu::amx::MatMulBf16(job);
  if (tiles.configured()) TileFault("the BF16 product", "its tiles were not released");
}

cpu::Tier Emulated(cpu::Tier tier) {
  tier.name = "amx_emulated";
  tier.supported = [] { return true; };
  tier.matmul_int8 = MatMulInt8;
  tier.matmul_bf16 = MatMulBf16;
  return tier;
}

}  // namespace

EmulatedTier AmxEmulated() {
  if (cpu::AmxTier().supported()) {
    return {.missing = "this processor has tiles: the tier \"amx\" is tested"};
  }
  if (!cpu::Avx512Bf16Tier().supported()) {
    return {.missing = "this processor lacks AVX-512 with VNNI and BF16"};
  }
  static const bool installed = Install();
  if (!installed) return {.missing = "no handler of illegal instructions can be set"};
  static const cpu::Tier tier = Emulated(cpu::AmxTier());
  return {.tier = &tier};
}

}  // namespace tandem
