// Runs a helper program bounded in time and memory: one request to it, one reply from it, over a
// socket of their own (its descriptor 3); what it prints is caught apart. The helper gets an empty
// environment, and dies with its parent.
//
// Blocks the calling thread; any number of threads may each run one.
#pragma once

#include <string>

#include "engine/base/units.h"

namespace tandem {

struct ChildLimits {
  double timeout_s = 10.0;
  Bytes memory;                       // resident
  Bytes reply{uint64_t{256} << 20};   // longest reply
  Bytes printed{uint64_t{16} << 10};  // what is kept of its output: the last bytes
};

struct ChildResult {
  enum class End { kExited, kSignalled, kTimeout, kMemory, kLongReply };
  End end = End::kExited;
  int code = 0;         // exit status, or the signal's number
  std::string reply;    // as far as it came
  std::string printed;  // the end of stdout and stderr together
  Bytes peak;           // largest resident size seen, when it ran into the memory limit
};

// "exited with status 1", "died of SIGSEGV (Segmentation fault)", "did not return within 10 s", ...
std::string DescribeEnd(const ChildResult& result, const ChildLimits& limits);

// Throws Error(kPlugin) when the helper cannot be started.
ChildResult RunChild(const std::string& program, const std::string& request,
                     const ChildLimits& limits);

}  // namespace tandem
