// One device computes; layers that do not fit in its memory stay in the host's. They are fetched
// for every step, the next one while the current one runs, or the host's processor runs them where
// they lie.
#include "tandem/plugin.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <vector>

namespace {

using tandem::plugin::Draft;
using tandem::plugin::Failure;
using tandem::plugin::Slot;
using tandem::plugin::Value;

// What happens to the layers that do not fit.
enum class Beyond {
  kStream,          // fetched for every step
  kCpu,             // run by the host's processor
  kPrefillStreams,  // fetched in prefill, run by the host's processor in decode: held twice
};

struct Layout {
  Beyond beyond = Beyond::kStream;
  tandem_device_id cpu = -1;      // the host's processor; -1: there is none
  std::vector<bool> is_outside;   // by block: not in the card's memory
  std::vector<uint32_t> fetched;  // blocks that are fetched, in order
  bool Streams(uint32_t program) const {
    return beyond == Beyond::kStream ||
           (beyond == Beyond::kPrefillStreams && program == TANDEM_PROGRAM_PREFILL);
  }
};

// The ends of the chain are streamed where they are not resident: a processor that has layers gains
// nothing by the head too.
Layout LayOut(const Draft& d, Beyond beyond, uint32_t resident_layers, bool resident_ends) {
  Layout layout{.beyond = beyond, .cpu = d.HostsProcessor()};
  for (uint32_t b = 0; b < d.n_blocks(); ++b) {
    const bool end = b == 0 || b == d.head();
    layout.is_outside.push_back(end ? !resident_ends : d.block(b).layer >= resident_layers);
    const bool fetched = layout.is_outside[b] && (end || beyond != Beyond::kCpu);
    if (fetched) layout.fetched.push_back(b);
  }
  return layout;
}

// Block k of the fetched ones goes through slot k % 2.
std::vector<Slot> MakeSlots(Draft& d, const Layout& layout) {
  std::vector<uint64_t> bytes(std::min<size_t>(2, layout.fetched.size()), 0);
  for (size_t k = 0; k < layout.fetched.size(); ++k) {
    const uint32_t b = layout.fetched[k];
    bytes[k % 2] = std::max(bytes[k % 2], d.weight_bytes(b, d.all(b)));
  }
  std::vector<Slot> slots;
  for (uint64_t size : bytes) slots.push_back(d.NewSlot(0, size));
  return slots;
}

void PlaceBlocks(Draft& d, const Layout& layout) {
  for (uint32_t b = 0; b < d.n_blocks(); ++b) {
    if (!layout.is_outside[b]) {
      d.Place(b, d.all(b), 0);
      continue;
    }
    const bool end = b == 0 || b == d.head();
    if (end || layout.beyond != Beyond::kCpu) d.Place(b, d.all(b), TANDEM_HOST);
    if (!end && layout.beyond != Beyond::kStream) d.Place(b, d.all(b), layout.cpu);
  }
}

// Fetches one block ahead of the one that runs.
class Fetcher {
 public:
  Fetcher(Draft& d, const Layout& layout, uint32_t program, const std::vector<Slot>& slots)
      : d_(d), slots_(slots) {
    for (uint32_t b : layout.fetched) {
      const bool end = b == 0 || b == d.head();
      if (end || layout.Streams(program)) blocks_.push_back(b);
    }
    Next();
  }
  void BeforeRun(uint32_t b) {
    if (std::find(blocks_.begin(), blocks_.end(), b) != blocks_.end()) Next();
  }

 private:
  void Next() {
    if (fetched_ == blocks_.size()) return;
    const uint32_t b = blocks_[fetched_];
    d_.Fetch(b, d_.all(b), TANDEM_HOST, slots_[fetched_ % 2]);
    ++fetched_;
  }

  Draft& d_;
  const std::vector<Slot>& slots_;
  std::vector<uint32_t> blocks_;
  size_t fetched_ = 0;
};

void WriteProgram(Draft& d, const Layout& layout, uint32_t program,
                  const std::vector<Slot>& slots) {
  d.Program(program);
  Fetcher fetcher(d, layout, program, slots);
  fetcher.BeforeRun(0);
  Value x = d.RunEmbed(d.all(0), 0);
  for (uint32_t b = 1; b < d.head(); ++b) {
    const bool on_cpu = layout.is_outside[b] && !layout.Streams(program);
    fetcher.BeforeRun(b);
    x = d.Step(b, d.Transfer(x, on_cpu ? layout.cpu : 0));
    // A later decode step reads this KV where it computes.
    const bool moves = layout.is_outside[b] && layout.beyond == Beyond::kPrefillStreams &&
                       program == TANDEM_PROGRAM_PREFILL &&
                       d.block(b).kind == TANDEM_BLOCK_ATTENTION;
    if (moves) d.KvMove(b, d.all(b), 0, 0, layout.cpu);
  }
  fetcher.BeforeRun(d.head());
  // Of the last norm only the rows to be sampled are left to cross.
  const Value n = d.Transfer(d.Norm(d.head(), x), 0);
  d.Sample(d.Run(d.head(), d.all(d.head()), n));
}

void Write(Draft& d, Beyond beyond, uint32_t resident_layers, bool resident_ends) {
  d.Reset();
  const Layout layout = LayOut(d, beyond, resident_layers, resident_ends);
  PlaceBlocks(d, layout);
  const std::vector<Slot> slots = MakeSlots(d, layout);
  for (uint32_t program : tandem::plugin::kPrograms) WriteProgram(d, layout, program, slots);
}

// Resident layers: a count, or as many as fit beside KV, slots and scratch. More resident layers
// never take less memory, except that the last one makes the slots superfluous: so all of them are
// tried first. True when every layer is resident.
bool WriteLargestThatFits(Draft& d, Beyond beyond, std::optional<uint32_t> resident,
                          bool resident_ends) {
  if (resident) {
    Write(d, beyond, *resident, resident_ends);
    return *resident == d.n_layers();
  }
  Write(d, beyond, d.n_layers(), resident_ends);
  if (d.Fits()) return true;
  uint32_t fits = 0;
  uint32_t too_many = d.n_layers();
  while (too_many - fits > 1) {
    const uint32_t middle = fits + (too_many - fits) / 2;
    Write(d, beyond, middle, resident_ends);
    (d.Fits() ? fits : too_many) = middle;
  }
  Write(d, beyond, fits, resident_ends);
  return false;
}

// The use that the choice is made for, that of plugin auto: every slot busy with a prompt of 512
// tokens and an answer of 128.
constexpr double kPromptTokens = 512;
constexpr double kAnswerTokens = 128;

double SecondsOf(const Draft& d, const tandem_price& price) {
  const double step_tokens = std::min<double>(
      {kPromptTokens, double(d.problem().max_step_tokens), double(d.problem().context)});
  return d.problem().max_sequences * (kPromptTokens / step_tokens) * price.prefill_seconds +
         kAnswerTokens * price.full_decode_seconds;
}

// The quickest by the host's prices of those that fit.
void WriteBest(Draft& d, std::optional<uint32_t> resident, bool resident_ends) {
  Beyond best = Beyond::kStream;
  std::optional<double> least;
  for (Beyond beyond : {Beyond::kStream, Beyond::kCpu, Beyond::kPrefillStreams}) {
    if (WriteLargestThatFits(d, beyond, resident, resident_ends)) return;
    const std::optional<tandem_price> price = d.Price();
    if (!price) continue;
    const double seconds = SecondsOf(d, *price);
    if (least && seconds >= *least) continue;
    least = seconds;
    best = beyond;
  }
  WriteLargestThatFits(d, best, resident, resident_ends);
}

std::optional<uint32_t> ResidentLayers(const Draft& d) {
  const std::string resident = d.Knob("resident_layers");
  if (resident == "auto") return std::nullopt;
  uint32_t layers = 0;
  const char* last = resident.data() + resident.size();
  const auto [end, error] = std::from_chars(resident.data(), last, layers);
  if (error != std::errc() || end != last || layers > d.n_layers()) {
    throw Failure(TANDEM_INVALID, "knob resident_layers: '" + resident + "' (want auto, or 0 to " +
                                      std::to_string(d.n_layers()) + ")");
  }
  return layers;
}

void Plan(Draft& d) {
  const std::optional<uint32_t> resident = ResidentLayers(d);
  const bool resident_ends = d.BoolKnob("resident_ends");
  const std::string beyond = d.Knob("beyond");
  const bool has_cpu = d.HostsProcessor() > 0;
  if (beyond == "stream" || (beyond == "auto" && !has_cpu)) {
    WriteLargestThatFits(d, Beyond::kStream, resident, resident_ends);
    return;
  }
  if (beyond == "auto") return WriteBest(d, resident, resident_ends);
  if (beyond != "cpu" && beyond != "prefill_streams") {
    throw Failure(TANDEM_INVALID,
                  "knob beyond: '" + beyond + "' (want auto, stream, cpu or prefill_streams)");
  }
  if (!has_cpu) {
    throw Failure(TANDEM_UNSUPPORTED,
                  "knob beyond: " + beyond +
                      " wants the host's processor among the devices, after the first "
                      "(--devices cuda:0,cpu, or a rig that has it)");
  }
  WriteLargestThatFits(d, beyond == "cpu" ? Beyond::kCpu : Beyond::kPrefillStreams, resident,
                       resident_ends);
}

}  // namespace

extern "C" TANDEM_EXPORT const tandem_plugin* tandem_plugin_entry_v1(void) {
  return tandem::plugin::Define<Plan>(
      {.name = "offload",
       .version = "0.2.0",
       .summary = "One device; layers that do not fit are fetched from host memory every step, or "
                  "run by the host's processor.",
       .knobs = {
           {"beyond",
            TANDEM_KNOB_STRING,
            "auto",
            {"auto"},
            "Layers that do not fit: stream, cpu, prefill_streams (and decode on the cpu), or auto "
            "by price."},
           {"resident_layers",
            TANDEM_KNOB_STRING,
            "auto",
            {"auto"},
            "Layers kept in device memory, the first ones: auto (as many as fit) or a count."},
           {"resident_ends",
            TANDEM_KNOB_BOOL,
            "true",
            {"true"},
            "Keep the embedding and the head in device memory."}}});
}
