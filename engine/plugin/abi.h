// Between the plugin ABI's numbers and the engine's types, and the one way to read a struct that a
// plugin wrote. Only engine/plugin sees both sides.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "engine/model/block_graph.h"
#include "engine/plan/plan.h"
#include "engine/rig/rig.h"
#include "tandem/plugin.h"

namespace tandem {

// The engine's enums count from 0; the ABI's from 1 where zero would be a mistake.
uint32_t AbiBlockKind(BlockKind kind);
uint32_t AbiLinkKind(LinkKind kind);
uint32_t AbiWire(WireType wire);
uint32_t AbiPath(PathKind path);
std::optional<OpKind> OpKindFromAbi(uint32_t kind);  // nothing for reserved kinds
std::optional<ProgramKind> ProgramKindFromAbi(uint32_t kind);
std::optional<MicrobatchKind> MicrobatchKindFromAbi(uint32_t kind);
std::optional<PathKind> PathKindFromAbi(uint32_t path);
std::optional<Algorithm> AlgorithmFromAbi(uint32_t algorithm);
std::optional<QueueKind> QueueKindFromAbi(uint32_t queue);  // REQUIRES: not DEFAULT

// Sizes of ABI 1.0: what every plugin has at least.
inline constexpr uint32_t kPlaceSize10 = 24;
inline constexpr uint32_t kSlotSize10 = 16;
inline constexpr uint32_t kProgramSize10 = 24;
inline constexpr uint32_t kOpSize10 = 80;
inline constexpr uint32_t kPriceSize10 = 24;
inline constexpr uint32_t kKnobSize10 = 48;
inline constexpr uint32_t kPluginSize10 = 64;

// Copies a struct that a plugin wrote with its own idea of the size. Nothing, and why, when it is
// shorter than ABI 1.0 or sets bytes this host does not know.
template <typename T>
std::optional<T> ReadGrown(const T* from, uint32_t size10, std::string* why) {
  constexpr uint32_t kLargest = 4096;
  if (from == nullptr) {
    *why = "is null";
    return std::nullopt;
  }
  uint32_t size = 0;
  std::memcpy(&size, from, sizeof(size));
  if (size < size10 || size > kLargest) {
    *why = "has struct_size " + std::to_string(size) + " (want at least " + std::to_string(size10) +
           ", sizeof the struct)";
    return std::nullopt;
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(from);
  for (uint32_t i = sizeof(T); i < size; ++i) {
    if (bytes[i] == 0) continue;
    *why = "sets byte " + std::to_string(i) + ", which ABI " + std::to_string(TANDEM_ABI_MAJOR) +
           "." + std::to_string(TANDEM_ABI_MINOR) +
           " does not know (it needs a newer tandem, and should say so in abi_minor_needed)";
    return std::nullopt;
  }
  T result{};
  std::memcpy(&result, from, std::min<size_t>(size, sizeof(T)));
  return result;
}

// Text of a plugin made fit for messages: at most `longest` bytes, control characters as '?'.
std::string CleanText(const char* text, size_t longest);

}  // namespace tandem
