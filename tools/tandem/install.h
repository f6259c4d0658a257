// Where the installed pieces are, relative to the running executable, and how users' names for
// models become files: the only place that reads the environment.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "engine/plugin/planner.h"
#include "engine/rig/rig.h"

namespace tandem {

// The folder of the running executable.
std::string ExecutableFolder();

// The helper executable and the plugin folders: beside the executable's, TANDEM_PLUGIN_PATH first.
PlannerOptions DefaultPlannerOptions();

// Folders that hold rigs/, links/ and models/: TANDEM_SCENARIOS, the repository's or the installed
// scenarios folder.
std::vector<std::string> CatalogueRoots();

// Folders searched for <name>.gguf, <name>-00001-of-0000N.gguf and <name>/config.json:
// TANDEM_MODELS, the installed share/, the user's data folder.
std::vector<std::string> ModelFolders();

// The path a model name stands for: a path with a '/', ending in .gguf, or of a folder with a
// config.json as it is, else the model of that name in the model folders. Throws Error(kNotFound)
// with near names and what to do.
std::string ModelPath(const std::string& name);

// Every model found by name, as (name, path).
std::vector<std::pair<std::string, std::string>> InstalledModels();

// -m VALUE: a name, a path, "synthetic:...", or a shape (model_shapes.h). Shapes get generated
// weights, or none when shape_only.
std::shared_ptr<const Model> OpenModel(const std::string& value, bool shape_only = false);

}  // namespace tandem
