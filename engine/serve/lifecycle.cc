#include "engine/serve/lifecycle.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/error.h"

namespace tandem {

Lifecycle::Lifecycle() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (event_ < 0) Fail(ErrorCode::kIo, "serve: no eventfd: too many open files?");
}

Lifecycle::~Lifecycle() { close(event_); }

void Lifecycle::RequestShutdown() {
  int saved = errno;
  requests_.fetch_add(1);
  uint64_t one = 1;
  // Fails only when the counter is full, and then the reader has been woken already.
  [[maybe_unused]] ssize_t written = write(event_, &one, sizeof one);
  errno = saved;
}

Lifecycle::Ticket::Ticket(Lifecycle& owner) : owner_(owner) {
  std::lock_guard lock(owner_.mutex_);
  ++owner_.in_flight_;
}

Lifecycle::Ticket::~Ticket() {
  std::lock_guard lock(owner_.mutex_);
  --owner_.in_flight_;
  owner_.changed_.notify_all();
}

bool Lifecycle::WaitForRequests(int count, std::chrono::milliseconds timeout) {
  auto until = std::chrono::steady_clock::now() + timeout;
  while (requests_.load() < count) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        until - std::chrono::steady_clock::now());
    if (left.count() <= 0) return false;
    pollfd entry{event_, POLLIN, 0};
    if (poll(&entry, 1, static_cast<int>(std::min<int64_t>(left.count(), 60000))) > 0) {
      uint64_t drained;
      [[maybe_unused]] ssize_t got = read(event_, &drained, sizeof drained);
    }
  }
  return true;
}

bool Lifecycle::idle() {
  std::lock_guard lock(mutex_);
  return in_flight_ == 0;
}

void Lifecycle::WaitForEnd(std::chrono::milliseconds drain_timeout) {
  while (!WaitForRequests(1, std::chrono::hours(1))) {
  }
  auto until = std::chrono::steady_clock::now() + drain_timeout;
  while (!idle() && std::chrono::steady_clock::now() < until) {
    if (WaitForRequests(2, std::chrono::milliseconds(20))) break;
  }
  aborted_.store(true);
  // Every holder of a ticket looks at aborted() some times a second; a writer stuck on a client
  // that does not read gives up after its write timeout.
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return in_flight_ == 0; });
}

}  // namespace tandem
