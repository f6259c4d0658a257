// The rate at which a thread team reads memory: what a decode step, which reads all weights once,
// can at best come near to. Its buffer is as large as what it stands for, so caches serve both
// alike, and it lies on huge pages as weights do.
//
// One thread; runs a team of its own, which is parked between passes.
#pragma once

#include <cstddef>
#include <memory>

#include "engine/device/cpu/thread_pool.h"

namespace tandem {

class ReadProbe {
 public:
  ReadProbe(int threads, size_t bytes);
  // Of one pass over the buffer.
  double BytesPerSecond();

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  ThreadPool pool_;
  size_t share_;  // bytes that one thread reads
  std::unique_ptr<std::byte[], Free> memory_;
};

}  // namespace tandem
