// Threads for connections, one each while it is open. Threads are made when a connection finds none
// idle, up to a fixed number; past it connections wait in a short queue, and past that the
// accepting thread waits, which leaves the rest to the kernel's backlog. Nothing here is unbounded.
//
// Thread-safe.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace tandem {

class ConnectionPool {
 public:
  ConnectionPool(size_t max_threads, size_t max_queue);
  ~ConnectionPool();  // Close(), then waits for every job

  // Blocks while the queue is full; after Close() the job runs at once on the caller's thread.
  void Push(std::function<void()> job);
  // No more waiting in Push(); jobs already given still run.
  void Close();
  // Close(), then returns when every job has run.
  void Join();

 private:
  void Work();

  std::mutex mutex_;
  std::condition_variable job_given_;
  std::condition_variable job_taken_;
  std::deque<std::function<void()>> jobs_;
  std::vector<std::thread> threads_;
  size_t max_threads_;
  size_t max_queue_;
  size_t idle_ = 0;
  bool closed_ = false;
};

}  // namespace tandem
