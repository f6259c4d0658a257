// Why a server could not listen: the system's reason, and what to do about it.
#pragma once

#include <string>

namespace tandem {

// Throws Error(kInvalidArgument) for what is no address and no name that has one.
void CheckHost(const std::string& host);

// After bind() or listen() failed: tries again by hand to learn why, then throws Error(kPortInUse)
// or Error(kInvalidArgument).
[[noreturn]] void FailBind(const std::string& host, int port);

}  // namespace tandem
