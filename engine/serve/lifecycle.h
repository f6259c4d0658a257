// Where a server stands between its first request and its last, and how many are in flight.
//
// Any thread; RequestShutdown also from a signal handler.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>

namespace tandem {

class Lifecycle {
 public:
  Lifecycle();
  ~Lifecycle();
  Lifecycle(const Lifecycle&) = delete;
  Lifecycle& operator=(const Lifecycle&) = delete;

  // Async-signal-safe. Once: drain. Twice: end at once.
  void RequestShutdown();
  bool draining() const { return requests_.load() > 0; }  // new work is refused
  bool aborted() const { return aborted_.load(); }        // work in flight must end

  // A piece of work in flight; it ends with the ticket.
  class Ticket {
   public:
    explicit Ticket(Lifecycle& owner);
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

   private:
    Lifecycle& owner_;
  };

  // Blocks until a shutdown is asked for, then until nothing is in flight, the timeout passes, or
  // a second shutdown is asked for; then sets aborted() and waits for the rest to end. One thread.
  void WaitForEnd(std::chrono::milliseconds drain_timeout);

 private:
  // Whether the count of requests reached `count` within the time.
  bool WaitForRequests(int count, std::chrono::milliseconds timeout);
  bool idle();

  int event_;  // an eventfd; each request writes to it
  std::atomic<int> requests_{0};
  std::atomic<bool> aborted_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  uint32_t in_flight_ = 0;  // guarded by mutex_
};

}  // namespace tandem
