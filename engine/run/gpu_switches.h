// How GPUs are driven: every switch a member of one struct, and one table that says how each is
// called and what it may be. Flags and their help, scenario keys, record fields, /props and --json
// derive from the table: a new switch is a member, its entry in gpu_switches.cc, and its use.
//
// Plain values; any thread.
//
//   GpuSwitches gpu;
//   for (const GpuSwitch& s : AllGpuSwitches()) {
//     if (!s.Set(gpu, word_for[s.key])) Fail(..., "want " + s.Wanted());
//   }
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/link/p2p_transport.h"
#include "kernels/ops.h"

namespace tandem {

// Whether decode steps are recorded and replayed (step_graph.h): where the devices can, or an error
// where they cannot, or never.
enum class GraphUse : uint8_t { kAuto, kOn, kOff };
const char* ToString(GraphUse use);  // "auto", "on", "off"

// Each a byte: a bool, or an enum over uint8_t.
struct GpuSwitches {
  // Half is for GPUs alone; Error(kUnsupported) where the CPU is among the devices.
  AttentionPrecision attention_precision = AttentionPrecision::kSplit;
  PrefillProducts prefill_products = PrefillProducts::kOwn;
  GraphUse graphs = GraphUse::kAuto;
  // Whether all-reduces add the residual and norm the sum in the kernel that makes it, where a
  // transport can (direct_collectives.h).
  bool fuse_collectives = true;
  // Whether the path nccl asks for symmetric windows (engine/link/cuda/nccl_windows.h).
  bool nccl_windows = true;
  P2pWay p2p_way = P2pWay::kAuto;
};

// A switch as it is seen from outside.
struct GpuSwitch {
  struct Word {
    const char* text;
    uint8_t value;  // of the member
  };

  const char* key;          // of scenarios, and where it is told: "p2p_way"
  const char* flags;        // "--p2p-way"; more names after a comma
  std::vector<Word> words;  // in the order in which errors name them
  const char* help;         // of the flag
  // Whether records, /props and --json tell under the key what was asked for. Of the others they
  // tell what came of it (EngineInfo: launch, collectives, NCCL's windows, the paths taken).
  bool told;
  std::function<uint8_t(const GpuSwitches&)> get;
  std::function<void(GpuSwitches&, uint8_t)> set;

  std::string flag() const;  // the first of `flags`
  const char* WordOf(const GpuSwitches& gpu) const;
  // False where there is no such word.
  bool Set(GpuSwitches& gpu, std::string_view word) const;
  std::string Wanted() const;  // "auto, push or pull"
};

// In the order of the members. What a member is initialised with is its default.
std::span<const GpuSwitch> AllGpuSwitches();

// Keys and words of those that are told.
std::vector<std::pair<const char*, const char*>> ToldSwitches(const GpuSwitches& gpu);

// All words, in order: equal where all switches are.
std::string SwitchWords(const GpuSwitches& gpu);

}  // namespace tandem
