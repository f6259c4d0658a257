// Engines on the shipped plugins. The tests that include this are given TANDEM_PLANNER and
// TANDEM_PLUGINS, the paths of the helper and of the plugins' folder.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "engine/run/engine.h"
#include "tests/support/plan_builders.h"

namespace tandem::testing {

inline std::string FromEnvironment(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

// Those of the build, or on a machine that it was carried to (tools/gpu-check) those named.
inline PlannerOptions ShippedPlugins() {
  return PlannerOptions{.helper = FromEnvironment("TANDEM_TEST_PLANNER", TANDEM_PLANNER),
                        .folders = {FromEnvironment("TANDEM_TEST_PLUGINS", TANDEM_PLUGINS)}};
}

// Room for four sequences of 128 tokens, on one thread.
inline EngineOptions PluginOptions(std::shared_ptr<const Model> model, const std::string& plugin,
                                   uint32_t devices) {
  EngineOptions options;
  options.model = std::move(model);
  options.rig = TestRig(devices);
  options.plugin = plugin;
  options.planner = ShippedPlugins();
  options.limits = PlanLimits{.max_step_tokens = 32, .max_sequences = 4, .context = 4 * 128};
  options.threads = 1;
  return options;
}

}  // namespace tandem::testing
