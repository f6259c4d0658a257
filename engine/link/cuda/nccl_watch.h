// Watches what NCCL was asked for. Its kernels wait for one another without a bound, and what goes
// wrong in its own threads no call tells of: so each group is marked in its queues, before and
// behind, and a thread looks now and then. A group that some device began and that is not done
// after the bound, or an error that NCCL or a device reports meanwhile, aborts the communicators:
// their kernels end, whoever waits for the queues goes on, and TakeFailure tells of the op.
//
// A group that could not be asked for aborts them too, for a part of it may be under way. Until
// TakeFailure was called every later group is refused with the first failure; after it,
// communicators are made anew.
//
// A thread that is stuck within a call of NCCL's cannot be freed: the process ends, naming the op.
//
// For the files of this folder alone: it includes NCCL's header.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "engine/base/function_ref.h"
#include "engine/device/cuda/handles.h"
#include "engine/link/cuda/nccl_calls.h"
#include "engine/link/transport.h"

namespace tandem {

// A queue that takes part in a group.
struct NcclEnd {
  DeviceId device;
  void* stream = nullptr;
};

class NcclWatch {
 public:
  // `comms` are by DeviceId, and outlive it.
  NcclWatch(NcclComms& comms, Nanos bound);
  ~NcclWatch();
  NcclWatch(const NcclWatch&) = delete;
  NcclWatch& operator=(const NcclWatch&) = delete;

  // `ask` makes the calls of a group, in the queues of `ends`, for an op of the step. Throws
  // Error(kDevice).
  void Launch(uint32_t op, std::span<const NcclEnd> ends, FunctionRef<void()> ask);
  // See Transport. What Launch has thrown is told already.
  std::optional<TransportFailure> TakeFailure();

 private:
  using Clock = std::chrono::steady_clock;
  struct Part {
    NcclEnd end;
    CudaEventHandle begun, done;
  };
  struct Group {
    uint32_t op = 0;
    std::vector<Part> parts;  // the first n_parts count
    size_t n_parts = 0;
    bool asked = false;  // its marks behind are in the queues
    std::optional<Clock::time_point> since;
  };

  void Refuse() const;
  Group& Add(uint32_t op, std::span<const NcclEnd> ends);
  void Drop();
  void Break(uint32_t op, std::string what, bool told);
  void Run();
  std::optional<TransportFailure> Look();
  std::optional<TransportFailure> LookAt(Group& group);

  NcclComms& comms_;
  const std::chrono::nanoseconds bound_;
  // Held while NCCL is called, before mutex_.
  std::timed_mutex calling_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Group> groups_;  // the first n_groups_ count, oldest first; kept for their events
  size_t n_groups_ = 0;
  std::optional<TransportFailure> failure_;
  bool told_ = false;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace tandem
