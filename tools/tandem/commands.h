// The program's commands, one file each. A command adds its subcommand to the root and, when the
// user chose it, leaves what is to be done in `action`; main runs it and turns Errors into exit
// codes.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

namespace tandem {

using Action = std::function<int()>;

void AddServeCommand(CLI::App& root, Action& action);
void AddRunCommand(CLI::App& root, Action& action);
void AddReportCommand(CLI::App& root, Action& action);
void AddRigCommand(CLI::App& root, Action& action);
void AddRigProbeCommand(CLI::App& rig, Action& action);  // below rig
void AddPlanCommand(CLI::App& root, Action& action);
void AddPredictCommand(CLI::App& root, Action& action);
void AddBenchCommand(CLI::App& root, Action& action);
void AddPerplexityCommand(CLI::App& root, Action& action);
void AddGenerateCommand(CLI::App& root, Action& action);
void AddModelsCommand(CLI::App& root, Action& action);
void AddPluginsCommand(CLI::App& root, Action& action);
void AddTokenizeCommand(CLI::App& root, Action& action);
void AddRenderCommand(CLI::App& root, Action& action);

// "0.1.0", from CMake.
std::string TandemVersion();

}  // namespace tandem
