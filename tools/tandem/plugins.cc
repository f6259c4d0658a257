// tandem plugins list | show: which splits are installed, and their knobs.
#include <fmt/core.h>

#include <memory>

#include "engine/plugin/planner.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"

namespace tandem {
namespace {

struct PluginsFlags {
  std::string name;
  bool json = false;
};

nlohmann::json PluginJson(const PluginInfo& info) {
  nlohmann::json knobs = nlohmann::json::array();
  for (const KnobInfo& knob : info.knobs) {
    knobs.push_back({{"name", knob.name},
                     {"type", knob.type},
                     {"default", knob.default_value},
                     {"grid", knob.grid},
                     {"help", knob.help}});
  }
  return {{"name", info.name},
          {"version", info.version},
          {"summary", info.summary},
          {"path", info.path},
          {"sha256", info.sha256},
          {"abi_minor_built", info.abi_minor_built},
          {"abi_minor_needed", info.abi_minor_needed},
          {"knobs", knobs}};
}

int List(const PluginsFlags& flags) {
  std::vector<PluginInfo> plugins = Planner(DefaultPlannerOptions()).List();
  if (flags.json) {
    nlohmann::json array = nlohmann::json::array();
    for (const PluginInfo& info : plugins) array.push_back(PluginJson(info));
    PrintJson(array);
    return kExitOk;
  }
  std::vector<std::vector<std::string>> rows{{"plugin", "version", "what it does"}};
  for (const PluginInfo& info : plugins) rows.push_back({info.name, info.version, info.summary});
  rows.push_back(
      {"auto", "", "prices every plugin over its knobs and takes the fastest that fits"});
  rows.push_back({"file", "", "runs a plan written by hand (--plan PATH)"});
  PrintOut(FormatTable(rows));
  return kExitOk;
}

int Show(const PluginsFlags& flags) {
  PluginInfo info = Planner(DefaultPlannerOptions()).Describe(flags.name);
  if (flags.json) {
    PrintJson(PluginJson(info));
    return kExitOk;
  }
  PrintLine(info.version.empty() ? info.name : info.name + " " + info.version);
  PrintLine(info.summary);
  // auto and file are the engine's own.
  if (!info.path.empty()) PrintLine(fmt::format("file {}\nsha256 {}", info.path, info.sha256));
  std::vector<std::vector<std::string>> rows{{"knob", "type", "default", "help"}};
  for (const KnobInfo& knob : info.knobs)
    rows.push_back({knob.name, knob.type, knob.default_value, knob.help});
  if (rows.size() > 1) PrintOut("\n" + FormatTable(rows));
  return kExitOk;
}

}  // namespace

void AddPluginsCommand(CLI::App& root, Action& action) {
  auto flags = std::make_shared<PluginsFlags>();
  CLI::App* app = root.add_subcommand("plugins", "Which splits are installed, and their knobs");
  app->require_subcommand(1);
  app->footer(
      "Examples:\n"
      "  tandem plugins list\n"
      "  tandem plugins show layer_split");
  CLI::App* list = app->add_subcommand("list", "Every installed plugin");
  list->add_flag("--json", flags->json);
  list->callback([flags, &action] { action = [flags] { return List(*flags); }; });
  CLI::App* show = app->add_subcommand("show", "One plugin: file, hash, knobs");
  show->add_option("name", flags->name, "A name, or a path to a .so")->required();
  show->add_flag("--json", flags->json);
  show->callback([flags, &action] { action = [flags] { return Show(*flags); }; });
}

}  // namespace tandem
