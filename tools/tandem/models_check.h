// tandem models inspect | verify: what a model's files hold, and whether their weights are numbers.
#pragma once

#include "tools/tandem/commands.h"

namespace tandem {

// Adds both to the command `models`.
void AddModelCheckCommands(CLI::App& models, Action& action);

}  // namespace tandem
