// Consecutive layers on consecutive devices; the residual stream crosses the link between them.
// Microbatches keep the stages busy at once: no schedule table, a device's queue simply holds its
// stage of microbatch 0, 1, 2, ... and runs ahead of the next device's.
#include "tandem/plugin.hpp"

#include <algorithm>
#include <string>
#include <vector>

namespace {

using tandem::plugin::Draft;
using tandem::plugin::Failure;
using tandem::plugin::ProgramOptions;
using tandem::plugin::Values;
using Homes = std::vector<tandem_device_id>;

// What the cut balances: bytes against the shares asked for, or against a property of the devices.
Homes CutBlocks(const Draft& d) {
  const std::string cut = d.Knob("cut");
  if (cut != "bytes" && cut != "memory" && cut != "bandwidth") {
    throw Failure(TANDEM_INVALID, "knob cut: '" + cut + "' (want bytes, memory or bandwidth)");
  }
  std::vector<double> size;
  for (uint32_t b = 0; b < d.n_blocks(); ++b) {
    const bool looked_up = cut == "bandwidth" && d.block(b).kind == TANDEM_BLOCK_EMBED;
    size.push_back(looked_up ? 0.0 : double(d.weight_bytes(b, d.all(b)) + d.kv_bytes(b, d.all(b))));
  }
  std::vector<double> capacity;
  bool known = true;
  for (int32_t i = 0; i < d.n_devices(); ++i) {
    const tandem_device& device = d.device(i);
    double c = device.share;
    if (!d.problem().shares_given && cut == "memory") c = double(device.memory_bytes);
    if (!d.problem().shares_given && cut == "bandwidth") {
      c = device.memory_bytes_per_s * device.memory_efficiency;
    }
    known = known && (d.problem().shares_given || c > 0);
    capacity.push_back(c);
  }
  if (!known) capacity.assign(capacity.size(), 1.0);
  return d.CutByLayer(size, capacity);
}

void Pipeline(Draft& d, const Homes& home, uint32_t kind, const ProgramOptions& options) {
  d.Program(kind, options);
  Values x(options.microbatches);
  uint32_t end = 0;
  for (uint32_t first = 0; first < d.n_blocks(); first = end) {  // a stage: [first, end)
    while (end < d.n_blocks() && home[end] == home[first]) ++end;
    for (uint32_t m = 0; m < options.microbatches; ++m) {
      if (first == 0) x[m] = d.RunEmbed(d.all(0), home[0], m);
      for (uint32_t b = std::max(first, 1u); b < std::min(end, d.head()); ++b) {
        x[m] = d.Step(b, x[m]);
      }
      if (end < d.n_blocks()) {
        x[m] = d.Transfer(x[m], home[end]);
      } else {
        d.Finish(x[m]);
      }
    }
  }
}

void Plan(Draft& d) {
  auto prefill = static_cast<uint32_t>(d.IntKnob("microbatches", 1, 8));
  auto decode = static_cast<uint32_t>(d.IntKnob("decode_microbatches", 1, 8));
  const Homes home = CutBlocks(d);
  if (home.front() == home.back()) prefill = decode = 1;  // one stage: nothing to overlap
  for (uint32_t b = 0; b < d.n_blocks(); ++b) d.Place(b, d.all(b), home[b]);
  Pipeline(d, home, TANDEM_PROGRAM_PREFILL,
           {.microbatches = prefill, .microbatch_kind = TANDEM_MICROBATCH_BY_CHUNK});
  Pipeline(d, home, TANDEM_PROGRAM_DECODE,
           {.microbatches = decode, .microbatch_kind = TANDEM_MICROBATCH_BY_SEQUENCE});
}

}  // namespace

extern "C" TANDEM_EXPORT const tandem_plugin* tandem_plugin_entry_v1(void) {
  return tandem::plugin::Define<Plan>(
      {.name = "layer_split",
       .version = "0.1.0",
       .summary = "Consecutive layers on consecutive devices, prefill pipelined in microbatches.",
       .knobs = {
           {"microbatches",
            TANDEM_KNOB_INT,
            "2",
            {"1", "2", "4"},
            "Chunks that a prefill step is cut into (1 to 8)."},
           {"decode_microbatches",
            TANDEM_KNOB_INT,
            "1",
            {"1"},
            "Groups of sequences that chase each other through a decode step (1 to 8)."},
           {"cut",
            TANDEM_KNOB_STRING,
            "bytes",
            {"bytes", "bandwidth"},
            "What is shared out evenly unless shares are given: bytes (of weights and KV), "
            "memory (bytes against capacity) or bandwidth (bytes read against bandwidth)."}}});
}
