// Copies between ordinary memories faster than one thread does: a few threads, each with a part.
// Any thread may ask; one copy runs at a time.
//
//   CopyTeam team(4);
//   team.Copy(to, from, bytes);
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>

#include "engine/device/cpu/thread_pool.h"

namespace tandem {

class CopyTeam {
 public:
  // One thread is the caller's own; more are started here and sleep between copies.
  explicit CopyTeam(int threads);

  // Done on return. The two do not overlap.
  void Copy(std::byte* to, const std::byte* from, size_t bytes) noexcept;

  // As many as copying gains by and this machine can spare: a quarter of its cores, one to four.
  static int UsefulThreads();

 private:
  std::mutex mutex_;
  std::unique_ptr<ThreadPool> pool_;  // where there is more than one thread
};

}  // namespace tandem
