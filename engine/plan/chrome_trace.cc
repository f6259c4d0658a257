// Chrome's trace format, array form: a process a device, a thread a queue, a complete ("X") slice
// an op. Slices of one queue never overlap, as viewers want it; a SAMPLE's ids, which travel while
// the queue goes on, have a thread of their own.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "engine/base/check.h"
#include "engine/plan/schedule.h"
#include "engine/plan/text.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kIdsThread = 4;  // after the four queues

int ThreadOf(QueueKind queue) { return static_cast<int>(queue); }

double Micros(Nanos time) { return static_cast<double>(time.value) / 1e3; }

Json Name(const char* what, int device, int thread, const std::string& name) {
  return Json{
      {"ph", "M"}, {"name", what}, {"pid", device}, {"tid", thread}, {"args", {{"name", name}}}};
}

void NameTracks(Json& events, uint32_t n_devices) {
  for (uint32_t d = 0; d < n_devices; ++d) {
    int pid = static_cast<int>(d);
    events.push_back(Name("process_name", pid, 0, fmt::format("d{}", d)));
    for (QueueKind queue :
         {QueueKind::kCompute, QueueKind::kCopyIn, QueueKind::kCopyOut, QueueKind::kComm}) {
      events.push_back(Name("thread_name", pid, ThreadOf(queue), ToString(queue)));
    }
    events.push_back(Name("thread_name", pid, kIdsThread, "ids"));
  }
}

// "run b17" or "all_reduce m1".
std::string Label(const Op& op) {
  bool of_block = op.kind == OpKind::kRun || op.kind == OpKind::kNorm || op.kind == OpKind::kAdd ||
                  op.kind == OpKind::kFetch || op.kind == OpKind::kKvMove;
  return of_block ? fmt::format("{} b{}", ToString(op.kind), op.block.value)
                  : fmt::format("{} m{}", ToString(op.kind), op.microbatch);
}

}  // namespace

std::string ChromeTrace(const Plan& plan, const Program& program, const Timeline& timeline) {
  Check(timeline.ops.size() == program.ops.size(), "trace: a timeline of another program");
  Json events = Json::array();
  NameTracks(events, plan.n_devices);
  auto slice = [&](const Op& op, size_t index, DeviceId device, int thread, Nanos begin, Nanos end,
                   const std::string& name) {
    if (begin >= end || device.IsHost()) return;
    events.push_back(Json{{"ph", "X"},
                          {"name", name},
                          {"cat", IsCompute(op.kind) ? "compute" : "movement"},
                          {"pid", device.value},
                          {"tid", thread},
                          {"ts", Micros(begin)},
                          {"dur", Micros(end - begin)},
                          {"args",
                           {{"op", index},
                            {"text", FormatOp(op)},
                            {"exposed_us", Micros(timeline.ops[index].exposed)}}}});
  };
  for (size_t i = 0; i < program.ops.size(); ++i) {
    const Op& op = program.ops[i];
    const OpTiming& timing = timeline.ops[i];
    for (size_t d = 0; d < op.devices.size(); ++d) {
      slice(op, i, op.devices[d], ThreadOf(QueueOn(op, d)), timing.start, timing.release,
            Label(op));
    }
    if (op.kind == OpKind::kSample) {
      slice(op, i, op.devices[0], kIdsThread, timing.wire, timing.end, "ids");
    }
  }
  return events.dump();
}

}  // namespace tandem
