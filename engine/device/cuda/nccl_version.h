// The version of the NCCL that is linked in. nccl_version.cc when CMake found the library, else
// no_nccl.cc.
#pragma once

#include <string>

namespace tandem {

// "2.28.3"; empty when the build has no NCCL.
std::string NcclVersion();

}  // namespace tandem
