// One accepted socket with limits: bytes and time for the headers, pauses and total for the body,
// patience with a client that does not read. The HTTP library reads and writes through it, so that
// no peer can hold a thread or memory for longer than the limits say.
//
// Owns the socket. Belongs to the connection's thread, except Interrupt().
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <string>

namespace tandem {

struct ConnectionLimits {
  std::chrono::milliseconds read_timeout{10000};
  std::chrono::milliseconds write_timeout{30000};
  size_t max_header_bytes = size_t{64} << 10;
  size_t max_body_bytes = size_t{8} << 20;
};

class Connection {
 public:
  Connection(int fd, const ConnectionLimits& limits);
  ~Connection();  // lingers briefly so that the peer can read the answer, then closes
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Bytes read; 0 when the peer closed; -1 past a limit or on an error.
  ssize_t Read(char* to, size_t size);
  // All of it, or -1.
  ssize_t Write(const char* from, size_t size);
  // The headers are complete: the body's limits apply from here.
  void BeginBody();
  bool Connected() const;
  bool WaitReadable() const;
  bool WaitWritable() const;
  // From another thread: a read in progress ends as if the peer had closed.
  void Interrupt();

  int fd() const { return fd_; }
  bool wrote() const { return wrote_; }
  bool too_large() const { return too_large_; }  // the headers, or a body's framing
  bool timed_out() const { return timed_out_ && received_ > 0; }
  std::string remote_address() const;

 private:
  using Clock = std::chrono::steady_clock;
  ssize_t Fill();
  void Linger();

  int fd_;
  ConnectionLimits limits_;
  Clock::time_point deadline_;  // of the phase
  std::array<char, 16384> buffer_;
  size_t begin_ = 0, end_ = 0;
  size_t received_ = 0;  // bytes handed out
  size_t allowed_;       // of them, in this phase
  bool in_body_ = false;
  bool wrote_ = false, too_large_ = false, timed_out_ = false;
  std::atomic<bool> reading_{true};
};

}  // namespace tandem
