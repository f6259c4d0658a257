#include "engine/serve/step_totals.h"

#include <fmt/format.h>

#include "engine/serve/framing.h"

namespace tandem {
namespace {

void AddTo(std::vector<DeviceAttribution>& sums, const std::vector<DeviceAttribution>& step) {
  if (sums.size() < step.size()) sums.resize(step.size());
  for (size_t i = 0; i < step.size(); ++i) {
    sums[i].device = step[i].device;
    sums[i].compute += step[i].compute;
    sums[i].launch += step[i].launch;
    sums[i].exposed_comm += step[i].exposed_comm;
    sums[i].wait += step[i].wait;
    sums[i].idle += step[i].idle;
  }
}

}  // namespace

std::string OpName(OpKind op) { return LowerCase(ToString(op)); }

void StepTotals::OnStep(const StepReport& report) {
  if (report.phase != ProgramKind::kPrefill && report.phase != ProgramKind::kDecode) return;
  std::lock_guard lock(mutex_);
  Phase& phase = phases_[report.phase == ProgramKind::kPrefill ? 0 : 1];
  ++phase.steps;
  phase.rows += report.shape.rows();
  phase.length += report.timeline.length;
  phase.wall += report.wall;
  phase.link_busy += report.timeline.link_busy;
  phase.exposed_comm += report.timeline.exposed_comm;
  AddTo(phase.devices, report.timeline.devices);
  for (const HopRow& hop : report.hops) {
    phase.bytes[{hop.src, hop.dst, hop.path, hop.kind}] += hop.bytes.value;
  }
}

StepTotals::Phases StepTotals::Read() const {
  std::lock_guard lock(mutex_);
  return phases_;
}

}  // namespace tandem
