#include "engine/serve/connection.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tandem {
namespace {

// Chunk sizes, line ends and trailers of a chunked body, beyond the body itself.
constexpr size_t kFramingSlack = size_t{1} << 20;
// A whole request has so many read timeouts to arrive.
constexpr int kBodyPatience = 6;
constexpr std::chrono::milliseconds kLinger{1000};

int PollOnce(int fd, short events, std::chrono::milliseconds timeout) {
  pollfd entry{fd, events, 0};
  int ready;
  do {
    ready = poll(&entry, 1, static_cast<int>(std::max<int64_t>(0, timeout.count())));
  } while (ready < 0 && errno == EINTR);
  return ready <= 0 ? ready : (entry.revents == 0 ? 0 : entry.revents);
}

}  // namespace

Connection::Connection(int fd, const ConnectionLimits& limits)
    : fd_(fd),
      limits_(limits),
      deadline_(Clock::now() + limits.read_timeout),
      allowed_(limits.max_header_bytes) {
  int on = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

Connection::~Connection() {
  Linger();
  close(fd_);
}

void Connection::BeginBody() {
  in_body_ = true;
  deadline_ = Clock::now() + kBodyPatience * limits_.read_timeout;
  // A body may take twice its limit on the wire (chunks of one byte cost more, and get refused).
  allowed_ = received_ + 2 * limits_.max_body_bytes + kFramingSlack;
}

ssize_t Connection::Fill() {
  auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now());
  if (in_body_) left = std::min(left, limits_.read_timeout);
  int ready = left.count() <= 0 ? 0 : PollOnce(fd_, POLLIN, left);
  if (ready == 0) {
    timed_out_ = true;
    return -1;
  }
  if (ready < 0) return -1;
  ssize_t got;
  do {
    got = recv(fd_, buffer_.data(), buffer_.size(), 0);
  } while (got < 0 && errno == EINTR);
  if (got <= 0) return got;
  begin_ = 0;
  end_ = static_cast<size_t>(got);
  return got;
}

ssize_t Connection::Read(char* to, size_t size) {
  if (!reading_.load(std::memory_order_relaxed)) return 0;
  if (received_ >= allowed_) {
    too_large_ = true;
    return -1;
  }
  if (begin_ == end_) {
    ssize_t got = Fill();
    if (got <= 0) return got;
  }
  size_t n = std::min({size, end_ - begin_, allowed_ - received_});
  std::memcpy(to, buffer_.data() + begin_, n);
  begin_ += n;
  received_ += n;
  return static_cast<ssize_t>(n);
}

ssize_t Connection::Write(const char* from, size_t size) {
  size_t done = 0;
  while (done < size) {
    ssize_t n = send(fd_, from + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) {
      wrote_ = true;
      done += static_cast<size_t>(n);
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return -1;
    int ready = PollOnce(fd_, POLLOUT, limits_.write_timeout);
    if (ready <= 0 || (ready & (POLLERR | POLLHUP)) != 0) return -1;
  }
  return static_cast<ssize_t>(size);
}

bool Connection::Connected() const {
  int ready = PollOnce(fd_, POLLRDHUP, std::chrono::milliseconds(0));
  return ready == 0;
}

bool Connection::WaitReadable() const {
  return begin_ < end_ || PollOnce(fd_, POLLIN, limits_.read_timeout) > 0;
}

bool Connection::WaitWritable() const {
  int ready = PollOnce(fd_, POLLOUT, limits_.write_timeout);
  return ready > 0 && (ready & (POLLERR | POLLHUP)) == 0;
}

void Connection::Interrupt() {
  reading_.store(false, std::memory_order_relaxed);
  shutdown(fd_, SHUT_RD);
}

// Closing a socket with unread input resets it, and the peer would lose the answer it has not read
// yet (a 413 in the middle of its upload). So: say that nothing more comes, read what is still
// under way for a moment, then close.
void Connection::Linger() {
  if (!wrote_ || shutdown(fd_, SHUT_WR) != 0) return;
  auto until = Clock::now() + kLinger;
  while (true) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    if (left.count() <= 0 || PollOnce(fd_, POLLIN, left) <= 0) return;
    if (recv(fd_, buffer_.data(), buffer_.size(), MSG_DONTWAIT) <= 0) return;
  }
}

std::string Connection::remote_address() const {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  std::array<char, NI_MAXHOST> host{};
  if (getpeername(fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      getnameinfo(reinterpret_cast<sockaddr*>(&address), size, host.data(), host.size(), nullptr, 0,
                  NI_NUMERICHOST) != 0) {
    return "unknown";
  }
  return host.data();
}

}  // namespace tandem
