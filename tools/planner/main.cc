// tandem-planner: the process in which plugins are opened. The engine starts it (engine/plugin/
// child.h), sends one request over descriptor 3 and reads one reply; a plugin that crashes, hangs
// or scribbles does it here. Not meant for people.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>

#include "engine/plugin/worker.h"

namespace {

// Where the channel is moved to: a plugin that closes or writes descriptors by habit starts low.
constexpr int kChannelAbove = 200;

const char* Option(int argc, char** argv, const char* name) {
  const size_t length = strlen(name);
  for (int i = 1; i < argc; ++i) {
    if (strncmp(argv[i], name, length) == 0 && argv[i][length] == '=') return argv[i] + length + 1;
  }
  return nullptr;
}

void Limit(int resource, uint64_t value) {
  const rlimit limit{value, value};
  setrlimit(resource, &limit);
}

// Address space is a coarse second bound: the parent watches resident memory. A sanitizer's shadow
// alone is beyond any bound; then only the parent watches.
void LimitAddressSpace(uint64_t memory) {
  std::ifstream statm("/proc/self/statm");
  uint64_t pages = 0;
  statm >> pages;
  const uint64_t used = pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t bound = 2 * memory + (uint64_t{1} << 30);
  if (memory != 0 && used < bound) Limit(RLIMIT_AS, bound);
}

}  // namespace

int main(int argc, char** argv) {
  const char* channel_option = Option(argc, argv, "--channel");
  const char* parent_option = Option(argc, argv, "--parent");
  const char* memory_option = Option(argc, argv, "--memory");
  if (channel_option == nullptr || parent_option == nullptr || memory_option == nullptr) {
    fprintf(stderr, "tandem-planner: started by tandem to open plugins; it has no use by hand\n");
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != atoi(parent_option)) return 1;  // the parent died before the line above
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);

  const int channel = fcntl(atoi(channel_option), F_DUPFD_CLOEXEC, kChannelAbove);
  if (channel < 0) return 1;
  close_range(3, static_cast<unsigned>(channel) - 1, 0);
  close_range(static_cast<unsigned>(channel) + 1, ~0u, 0);

  Limit(RLIMIT_CORE, 0);
  LimitAddressSpace(strtoull(memory_option, nullptr, 10));
  const bool ok = tandem::ServePlanRequest(channel);
  // The reply is out: a plugin's exit handlers have nothing to add.
  fflush(nullptr);
  _exit(ok ? 0 : 1);
}
