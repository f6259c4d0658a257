#include "tools/tandem/commands.h"

namespace tandem {

std::string TandemVersion() { return TANDEM_VERSION; }

}  // namespace tandem
