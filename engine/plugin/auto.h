// `auto`: prices every plugin of the folders over its grid of knobs and takes the best that fits.
#pragma once

#include <vector>

#include "engine/plugin/planner.h"

namespace tandem {

// The best plan by PriceUse (objective.h), for the use that auto's own knobs describe; plans that
// take the same go by memory, fewer knobs, shorter name, name. The other `fixed` knobs hold for
// every plugin that declares them. Throws Error(kPlan) when no plan is possible, with every
// plugin's reason.
PlannedRun SearchPlugins(const PlannerOptions& options, const PlanProblem& problem,
                         const std::vector<Knob>& fixed);

}  // namespace tandem
