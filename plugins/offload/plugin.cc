// One device computes; layers that do not fit in its memory stay in the host's and are fetched for
// every step, the next one while the current one runs.
#include "tandem/plugin.hpp"

#include <algorithm>
#include <charconv>
#include <string>
#include <vector>

namespace {

using tandem::plugin::Draft;
using tandem::plugin::Failure;
using tandem::plugin::Slot;
using tandem::plugin::Value;

struct Layout {
  std::vector<bool> is_streamed;   // by block
  std::vector<uint32_t> streamed;  // the blocks fetched, in order
};

Layout LayOut(const Draft& d, uint32_t resident_layers, bool resident_ends) {
  Layout layout;
  for (uint32_t b = 0; b < d.n_blocks(); ++b) {
    const bool end = b == 0 || b == d.head();
    layout.is_streamed.push_back(end ? !resident_ends : d.block(b).layer >= resident_layers);
    if (layout.is_streamed[b]) layout.streamed.push_back(b);
  }
  return layout;
}

// Block k of the streamed ones goes through slot k % 2.
std::vector<Slot> MakeSlots(Draft& d, const Layout& layout) {
  std::vector<uint64_t> bytes(std::min<size_t>(2, layout.streamed.size()), 0);
  for (size_t k = 0; k < layout.streamed.size(); ++k) {
    const uint32_t b = layout.streamed[k];
    bytes[k % 2] = std::max(bytes[k % 2], d.weight_bytes(b, d.all(b)));
  }
  std::vector<Slot> slots;
  for (uint64_t size : bytes) slots.push_back(d.NewSlot(0, size));
  return slots;
}

void Write(Draft& d, uint32_t resident_layers, bool resident_ends) {
  d.Reset();
  const Layout layout = LayOut(d, resident_layers, resident_ends);
  for (uint32_t b = 0; b < d.n_blocks(); ++b) {
    d.Place(b, d.all(b), layout.is_streamed[b] ? TANDEM_HOST : 0);
  }
  const std::vector<Slot> slots = MakeSlots(d, layout);
  for (uint32_t program : tandem::plugin::kPrograms) {
    d.Program(program);
    size_t fetched = 0;
    const auto fetch_next = [&] {
      if (fetched == layout.streamed.size()) return;
      const uint32_t b = layout.streamed[fetched];
      d.Fetch(b, d.all(b), TANDEM_HOST, slots[fetched % 2]);
      ++fetched;
    };
    fetch_next();
    Value x;
    for (uint32_t b = 0; b < d.n_blocks(); ++b) {
      if (layout.is_streamed[b]) fetch_next();  // the one after b, while b runs
      if (b == 0) {
        x = d.RunEmbed(d.all(0), 0);
      } else if (b < d.head()) {
        x = d.Step(b, x);
      } else {
        d.Finish(x);
      }
    }
  }
}

// As many layers as fit beside KV, slots and scratch. More resident layers never take less memory,
// except that the last one makes the slots superfluous: so all of them are tried first.
void WriteLargestThatFits(Draft& d, bool resident_ends) {
  Write(d, d.n_layers(), resident_ends);
  if (d.Fits()) return;
  uint32_t fits = 0;
  uint32_t too_many = d.n_layers();
  while (too_many - fits > 1) {
    const uint32_t middle = fits + (too_many - fits) / 2;
    Write(d, middle, resident_ends);
    (d.Fits() ? fits : too_many) = middle;
  }
  Write(d, fits, resident_ends);
}

void Plan(Draft& d) {
  const std::string resident = d.Knob("resident_layers");
  const bool resident_ends = d.BoolKnob("resident_ends");
  if (resident == "auto") return WriteLargestThatFits(d, resident_ends);
  uint32_t layers = 0;
  const char* last = resident.data() + resident.size();
  const auto [end, error] = std::from_chars(resident.data(), last, layers);
  if (error != std::errc() || end != last || layers > d.n_layers()) {
    throw Failure(TANDEM_INVALID, "knob resident_layers: '" + resident + "' (want auto, or 0 to " +
                                      std::to_string(d.n_layers()) + ")");
  }
  Write(d, layers, resident_ends);
}

}  // namespace

extern "C" TANDEM_EXPORT const tandem_plugin* tandem_plugin_entry_v1(void) {
  return tandem::plugin::Define<Plan>(
      {.name = "offload",
       .version = "0.1.0",
       .summary = "One device; layers that do not fit are fetched from host memory every step.",
       .knobs = {
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
