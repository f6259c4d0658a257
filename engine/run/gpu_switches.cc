// The table of the switches, and what is read from it.
#include "engine/run/gpu_switches.h"

#include <algorithm>
#include <initializer_list>

#include "engine/base/check.h"

namespace tandem {
namespace {

const char* TextOf(bool on) { return on ? "on" : "off"; }
template <typename T>
const char* TextOf(T value) {
  return ToString(value);
}

constexpr bool kAsAsked = true, kOutcomeTold = false;

template <typename T>
GpuSwitch Entry(T GpuSwitches::* member, const char* key, const char* flags,
                std::initializer_list<T> values, bool told, const char* help) {
  static_assert(sizeof(T) == 1, "a switch is a byte");
  GpuSwitch entry{
      .key = key, .flags = flags, .words = {}, .help = help, .told = told, .get = {}, .set = {}};
  for (T value : values) entry.words.push_back({TextOf(value), static_cast<uint8_t>(value)});
  entry.get = [member](const GpuSwitches& gpu) { return static_cast<uint8_t>(gpu.*member); };
  entry.set = [member](GpuSwitches& gpu, uint8_t value) { gpu.*member = static_cast<T>(value); };
  return entry;
}

std::vector<GpuSwitch> MakeTable() {
  using enum AttentionPrecision;
  using enum PrefillProducts;
  return {
      Entry(&GpuSwitches::attention_precision, "attention_precision", "--attention-precision",
            {kSplit, kHalf}, kAsAsked,
            "Attention on GPUs: split (queries and weights as two f16 each, as exact as f32) "
            "or half (as one)"),
      Entry(&GpuSwitches::prefill_products, "prefill_products", "--prefill-products,--prefill",
            {kOwn, kCublasLt}, kAsAsked,
            "On GPUs, what multiplies the rows of prompts: own kernels, or cublaslt, in BF16"),
      Entry(&GpuSwitches::graphs, "graphs", "--graphs",
            {GraphUse::kAuto, GraphUse::kOn, GraphUse::kOff}, kOutcomeTold,
            "Record decode steps and replay them: auto (where the devices can), on or off"),
      Entry(&GpuSwitches::fuse_collectives, "fuse_collectives", "--fuse-collectives", {true, false},
            kOutcomeTold,
            "Small all-reduces add the residual and norm the sum in their own kernel, where "
            "the transport can (p2p, host_staged): on or off"),
      Entry(&GpuSwitches::nccl_windows, "nccl_windows", "--nccl-windows", {true, false},
            kOutcomeTold,
            "On the path nccl, small all-reduces over symmetric windows, where NCCL grants "
            "them: on or off"),
      Entry(&GpuSwitches::p2p_way, "p2p_way", "--p2p-way",
            {P2pWay::kAuto, P2pWay::kPush, P2pWay::kPull}, kOutcomeTold,
            "On the path p2p, who moves what crosses: push (the sender), pull (the receiver), "
            "or auto, as a probe at start-up finds"),
  };
}

}  // namespace

const char* ToString(GraphUse use) {
  switch (use) {
    case GraphUse::kAuto:
      return "auto";
    case GraphUse::kOn:
      return "on";
    case GraphUse::kOff:
      return "off";
  }
  return "?";
}

std::string GpuSwitch::flag() const {
  const std::string_view all = flags;
  return std::string(all.substr(0, all.find(',')));
}

const char* GpuSwitch::WordOf(const GpuSwitches& gpu) const {
  const auto at = std::ranges::find(words, get(gpu), &Word::value);
  Check(at != words.end(), "gpu switches: a value without a word in the table");
  return at->text;
}

bool GpuSwitch::Set(GpuSwitches& gpu, std::string_view word) const {
  const auto at = std::ranges::find(words, word, &Word::text);
  if (at == words.end()) return false;
  set(gpu, at->value);
  return true;
}

std::string GpuSwitch::Wanted() const {
  std::string wanted;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) wanted += i + 1 == words.size() ? " or " : ", ";
    wanted += words[i].text;
  }
  return wanted;
}

std::span<const GpuSwitch> AllGpuSwitches() {
  static const std::vector<GpuSwitch> table = MakeTable();
  return table;
}

std::vector<std::pair<const char*, const char*>> ToldSwitches(const GpuSwitches& gpu) {
  std::vector<std::pair<const char*, const char*>> told;
  for (const GpuSwitch& s : AllGpuSwitches()) {
    if (s.told) told.emplace_back(s.key, s.WordOf(gpu));
  }
  return told;
}

std::string SwitchWords(const GpuSwitches& gpu) {
  std::string words;
  for (const GpuSwitch& s : AllGpuSwitches()) {
    if (!words.empty()) words += ' ';
    words += s.WordOf(gpu);
  }
  return words;
}

}  // namespace tandem
