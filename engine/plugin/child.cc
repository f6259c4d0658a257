#include "engine/plugin/child.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <utility>

#include "engine/base/error.h"

namespace tandem {
namespace {

using SteadyClock = std::chrono::steady_clock;

// How often time and memory are looked at while the helper is silent.
constexpr int kTickMillis = 10;
// The parent's ends live above the numbers that the helper's descriptors are put on, so that no
// dup2 on the way there overwrites another.
constexpr int kLowestDescriptor = 10;

[[noreturn]] void FailStart(const std::string& program, const char* what, int error) {
  Fail(ErrorCode::kPlugin,
       fmt::format("planner: cannot start {}: {}: {}", program, what, strerror(error)));
}

// An owned file descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { Close(); }
  int get() const { return fd_; }
  bool open() const { return fd_ >= 0; }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

struct Channels {
  Descriptor parent, child;          // the socket
  Descriptor printed, child_prints;  // the pipe of its stdout and stderr
};

// Owns both ends of a pair and moves them up.
void Own(const int ends[2], const std::string& program, Descriptor* first, Descriptor* second) {
  const Descriptor low_first(ends[0]);
  const Descriptor low_second(ends[1]);
  *first = Descriptor(fcntl(ends[0], F_DUPFD_CLOEXEC, kLowestDescriptor));
  *second = Descriptor(fcntl(ends[1], F_DUPFD_CLOEXEC, kLowestDescriptor));
  if (!first->open() || !second->open()) FailStart(program, "fcntl", errno);
  fcntl(first->get(), F_SETFL, fcntl(first->get(), F_GETFL) | O_NONBLOCK);
}

Channels OpenChannels(const std::string& program) {
  Channels channels;
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    FailStart(program, "socketpair", errno);
  }
  Own(ends, program, &channels.parent, &channels.child);
  if (pipe2(ends, O_CLOEXEC) != 0) FailStart(program, "pipe2", errno);
  Own(ends, program, &channels.printed, &channels.child_prints);
  return channels;
}

// posix_spawn's two objects, destroyed in pairs.
struct SpawnSetup {
  SpawnSetup() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSetup() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

pid_t Spawn(const std::string& program, const Channels& channels, const ChildLimits& limits) {
  SpawnSetup setup;
  posix_spawn_file_actions_addopen(&setup.actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&setup.actions, channels.child_prints.get(), 1);
  posix_spawn_file_actions_adddup2(&setup.actions, channels.child_prints.get(), 2);
  posix_spawn_file_actions_adddup2(&setup.actions, channels.child.get(), 3);
  // Its own group, so that whatever it starts ends with it; default signals whatever ours are.
  sigset_t all;
  sigset_t none;
  sigfillset(&all);
  sigemptyset(&none);
  posix_spawnattr_setflags(&setup.attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  posix_spawnattr_setpgroup(&setup.attributes, 0);
  posix_spawnattr_setsigdefault(&setup.attributes, &all);
  posix_spawnattr_setsigmask(&setup.attributes, &none);

  std::string arguments[] = {program, "--channel=3", fmt::format("--parent={}", getpid()),
                             fmt::format("--memory={}", limits.memory.value)};
  char* argv[] = {arguments[0].data(), arguments[1].data(), arguments[2].data(),
                  arguments[3].data(), nullptr};
  char* environment[] = {nullptr};
  pid_t pid = 0;
  const int error =
      posix_spawn(&pid, program.c_str(), &setup.actions, &setup.attributes, argv, environment);
  if (error != 0) FailStart(program, "posix_spawn", error);
  return pid;
}

Bytes ResidentSize(pid_t pid) {
  std::ifstream statm(fmt::format("/proc/{}/statm", pid));
  uint64_t total = 0;
  uint64_t resident = 0;
  statm >> total >> resident;
  return Bytes{resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE))};
}

// One running helper. Dies with this object.
class Child {
 public:
  Child(const std::string& program, const std::string& request, const ChildLimits& limits)
      : limits_(limits), request_(request), channels_(OpenChannels(program)) {
    deadline_ = SteadyClock::now() + std::chrono::duration_cast<SteadyClock::duration>(
                                         std::chrono::duration<double>(limits.timeout_s));
    pid_ = Spawn(program, channels_, limits);
    channels_.child.Close();
    channels_.child_prints.Close();
  }
  ~Child() {
    if (pid_ > 0) Kill();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  ChildResult Run() {
    while (channels_.parent.open() || channels_.printed.open()) {
      if (!Within()) return result_;
      PumpOnce();
    }
    // It hung up: its end is near, unless it only closed its descriptors.
    while (!Reap(WNOHANG)) {
      if (!Within()) return result_;
      poll(nullptr, 0, 1);
    }
    return result_;
  }

 private:
  // False when a limit is reached: the helper is dead then.
  bool Within() {
    if (result_.reply.size() > limits_.reply.value) return Stop(ChildResult::End::kLongReply);
    if (SteadyClock::now() >= deadline_) return Stop(ChildResult::End::kTimeout);
    const Bytes resident = ResidentSize(pid_);
    if (limits_.memory.value != 0 && resident > limits_.memory) {
      result_.peak = resident;
      return Stop(ChildResult::End::kMemory);
    }
    return true;
  }

  bool Stop(ChildResult::End end) {
    Kill();
    result_.end = end;
    return false;
  }

  void PumpOnce() {
    pollfd fds[2] = {{channels_.parent.get(), POLLIN, 0}, {channels_.printed.get(), POLLIN, 0}};
    if (sent_ < request_.size()) fds[0].events |= POLLOUT;
    poll(fds, 2, kTickMillis);
    if (fds[0].revents & POLLOUT) Send();
    if (fds[0].revents & (POLLIN | POLLHUP | POLLERR)) {
      Receive(&channels_.parent, &result_.reply);
    }
    if (fds[1].revents & (POLLIN | POLLHUP | POLLERR)) {
      Receive(&channels_.printed, &result_.printed);
      const size_t keep = limits_.printed.value;
      if (result_.printed.size() > keep) {
        result_.printed.erase(0, result_.printed.size() - keep);
      }
    }
  }

  void Send() {
    const ssize_t n = send(channels_.parent.get(), request_.data() + sent_, request_.size() - sent_,
                           MSG_NOSIGNAL);
    // A helper that hung up early is found out when it is read from.
    if (n > 0) sent_ += static_cast<size_t>(n);
    if (n < 0 && errno != EAGAIN && errno != EINTR) sent_ = request_.size();
    if (sent_ == request_.size()) shutdown(channels_.parent.get(), SHUT_WR);
  }

  static void Receive(Descriptor* from, std::string* to) {
    char buffer[65536];
    const ssize_t n = read(from->get(), buffer, sizeof(buffer));
    if (n > 0) to->append(buffer, static_cast<size_t>(n));
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) from->Close();
  }

  bool Reap(int flags) {
    int status = 0;
    const pid_t got = waitpid(pid_, &status, flags);
    if (got == 0 || (got < 0 && errno == EINTR)) return false;
    pid_ = -1;
    if (got > 0 && WIFSIGNALED(status)) {
      result_.end = ChildResult::End::kSignalled;
      result_.code = WTERMSIG(status);
    } else if (got > 0) {
      result_.end = ChildResult::End::kExited;
      result_.code = WEXITSTATUS(status);
    }
    return true;
  }

  void Kill() {
    kill(-pid_, SIGKILL);
    kill(pid_, SIGKILL);
    while (!Reap(0)) {
    }
  }

  ChildLimits limits_;
  const std::string& request_;
  Channels channels_;
  SteadyClock::time_point deadline_;
  pid_t pid_ = -1;
  size_t sent_ = 0;
  ChildResult result_;
};

}  // namespace

std::string DescribeEnd(const ChildResult& result, const ChildLimits& limits) {
  switch (result.end) {
    case ChildResult::End::kExited:
      return fmt::format("ended with exit status {}", result.code);
    case ChildResult::End::kSignalled: {
      const char* name = sigabbrev_np(result.code);
      const char* text = sigdescr_np(result.code);
      return fmt::format("died of SIG{} ({})", name ? name : std::to_string(result.code).c_str(),
                         text ? text : "unknown signal");
    }
    case ChildResult::End::kTimeout:
      return fmt::format("did not return within {} s", limits.timeout_s);
    case ChildResult::End::kMemory:
      return fmt::format("took {} MiB of memory (its limit is {} MiB)", result.peak.value >> 20,
                         limits.memory.value >> 20);
    case ChildResult::End::kLongReply:
      return fmt::format("sent more than {} MiB", limits.reply.value >> 20);
  }
  return "ended";
}

ChildResult RunChild(const std::string& program, const std::string& request,
                     const ChildLimits& limits) {
  Child child(program, request, limits);
  return child.Run();
}

}  // namespace tandem
