#include "engine/serve/connection_pool.h"

#include <system_error>
#include <utility>

namespace tandem {

ConnectionPool::ConnectionPool(size_t max_threads, size_t max_queue)
    : max_threads_(max_threads), max_queue_(max_queue) {}

ConnectionPool::~ConnectionPool() { Join(); }

void ConnectionPool::Push(std::function<void()> job) {
  std::unique_lock lock(mutex_);
  job_taken_.wait(lock, [this] { return closed_ || jobs_.size() < max_queue_; });
  if (idle_ <= jobs_.size() && threads_.size() < max_threads_ && !closed_) {
    try {
      threads_.emplace_back([this] { Work(); });
    } catch (const std::system_error&) {
      // The system gives no more threads: those there are will come to it.
    }
  }
  if (closed_ || threads_.empty()) {
    lock.unlock();
    job();
    return;
  }
  jobs_.push_back(std::move(job));
  job_given_.notify_one();
}

void ConnectionPool::Close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  job_given_.notify_all();
  job_taken_.notify_all();
}

void ConnectionPool::Join() {
  Close();
  std::vector<std::thread> threads;
  {
    std::lock_guard lock(mutex_);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

void ConnectionPool::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_;
    job_given_.wait(lock, [this] { return closed_ || !jobs_.empty(); });
    --idle_;
    if (jobs_.empty()) return;
    std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    job_taken_.notify_one();
    lock.unlock();
    job();
    job = nullptr;
    lock.lock();
  }
}

}  // namespace tandem
