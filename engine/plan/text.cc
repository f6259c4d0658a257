// Writes plans down; text_parse.cc reads them. See text.h for the format.
#include "engine/plan/text.h"

#include <fmt/format.h>

#include <iterator>

#include "engine/base/device_name.h"

namespace tandem {
namespace {

bool IsPlain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("_.,:/+-=@%").find(c) != std::string_view::npos;
}

// A word as the parser reads it back: plain, or in quotes.
std::string Word(std::string_view word) {
  bool plain = !word.empty();
  for (char c : word) plain = plain && IsPlain(c);
  if (plain) return std::string(word);
  std::string out = "\"";
  for (char c : word) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + "\"";
}

// What a kind always shows; other kinds show these only when they are set.
bool ShowsBlock(OpKind kind) {
  return kind == OpKind::kRun || kind == OpKind::kNorm || kind == OpKind::kAdd ||
         kind == OpKind::kFetch || kind == OpKind::kKvMove;
}
bool ShowsUnits(OpKind kind) {
  return kind == OpKind::kRun || kind == OpKind::kFetch || kind == OpKind::kKvMove;
}
bool HasDirection(OpKind kind) {
  return kind == OpKind::kTransfer || kind == OpKind::kFetch || kind == OpKind::kKvMove;
}

void AppendOp(const Op& op, bool with_call, fmt::memory_buffer& buffer) {
  auto out = std::back_inserter(buffer);
  const char* joint = HasDirection(op.kind) && op.devices.size() == 2 ? "->" : ",";
  for (size_t i = 0; i < op.devices.size(); ++i) {
    fmt::format_to(out, "{}{}", i == 0 ? "" : joint, DeviceName(op.devices[i]));
  }
  if (op.devices.empty()) fmt::format_to(out, "-");
  fmt::format_to(out, " {}", ToString(op.kind));
  bool units = ShowsUnits(op.kind) || op.units != UnitRange{};
  if (units || ShowsBlock(op.kind) || op.block != BlockId{}) {
    fmt::format_to(out, " b{}", op.block.value);
  }
  if (units) fmt::format_to(out, "[{}:{})", op.units.begin, op.units.end);
  if (op.kind != OpKind::kFetch || op.microbatch != 0) fmt::format_to(out, " m{}", op.microbatch);
  if (op.slot) fmt::format_to(out, " s{}", *op.slot);
  if (op.path != PathKind::kAuto) fmt::format_to(out, " path={}", ToString(op.path));
  if (op.algorithm != Algorithm::kNone) {
    fmt::format_to(out, " algorithm={}", ToString(op.algorithm));
  }
  if (op.queue) fmt::format_to(out, " queue={}", ToString(*op.queue));
  if (with_call && op.plugin_call != 0) fmt::format_to(out, " call={}", op.plugin_call);
  for (ValueId id : op.in) fmt::format_to(out, " <v{}", id);
  for (ValueId id : op.out) fmt::format_to(out, " >v{}", id);
}

}  // namespace

std::string FormatOp(const Op& op) {
  fmt::memory_buffer buffer;
  AppendOp(op, false, buffer);
  return fmt::to_string(buffer);
}

std::string FormatPlan(const Plan& plan, PlanText text) {
  fmt::memory_buffer buffer;
  auto out = std::back_inserter(buffer);
  fmt::format_to(out, "tandem-plan 1\n");
  if (text != PlanText::kHashed) {
    fmt::format_to(out, "plugin {} {}\n", Word(plan.plugin), Word(plan.plugin_version));
  }
  fmt::format_to(out, "devices {} lanes {} wire {}\n", plan.n_devices, plan.n_lanes,
                 ToString(plan.wire));
  if (text != PlanText::kHashed) {
    for (const Knob& knob : plan.knobs) {
      fmt::format_to(out, "knob {} {}\n", Word(knob.key), Word(knob.value));
    }
  }
  for (const Place& place : plan.places) {
    fmt::format_to(out, "place b{}[{}:{}) {}\n", place.block.value, place.units.begin,
                   place.units.end, DeviceName(place.device));
  }
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    fmt::format_to(out, "slot s{} {} {}\n", i, DeviceName(plan.slots[i].device),
                   plan.slots[i].bytes.value);
  }
  for (const Program& program : plan.programs) {
    fmt::format_to(out, "program {} lane {} microbatches {} {}\n", ToString(program.kind),
                   program.lane, program.microbatches, ToString(program.microbatch_kind));
    for (const Op& op : program.ops) {
      AppendOp(op, text == PlanText::kWithCalls, buffer);
      buffer.push_back('\n');
    }
  }
  return fmt::to_string(buffer);
}

}  // namespace tandem
