#include "engine/link/cuda/nccl_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <utility>

#include "engine/base/error.h"

namespace tandem {
namespace {

constexpr std::chrono::milliseconds kLongestNap{50};
// From here on groups that are done are looked for, where nobody asks for failures.
constexpr size_t kManyGroups = 512;

// Whether the mark is passed. A device that is lost tells so here.
bool Passed(const CudaEventHandle& mark) {
  const cudaError_t status = cudaEventQuery(mark.get());
  if (status == cudaErrorNotReady) {
    cudaGetLastError();  // no failure
    return false;
  }
  CheckCuda(status, "look for a mark");
  return true;
}

}  // namespace

NcclWatch::NcclWatch(NcclComms& comms, Nanos bound)
    : comms_(comms), bound_(bound.value), thread_([this] { Run(); }) {}

NcclWatch::~NcclWatch() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void NcclWatch::Refuse() const {
  if (!failure_) return;
  Fail(ErrorCode::kDevice, fmt::format("{} (in op {} of the step)", failure_->what, failure_->op));
}

void NcclWatch::Launch(uint32_t op, std::span<const NcclEnd> ends, FunctionRef<void()> ask) {
  const std::scoped_lock calling(calling_);
  Group* group = nullptr;
  {
    const std::scoped_lock lock(mutex_);
    Refuse();
    if (!comms_.made()) comms_.Make();
    group = &Add(op, ends);
  }
  try {
    const std::span parts = std::span(group->parts).first(group->n_parts);
    for (const Part& part : parts) {
      CheckCuda(cudaEventRecord(part.begun.get(), static_cast<cudaStream_t>(part.end.stream)),
                "mark what comes before a group");
    }
    changed_.notify_all();
    NcclGroup calls;
    ask();
    calls.Launch();
    for (const Part& part : parts) {
      CheckCuda(cudaEventRecord(part.done.get(), static_cast<cudaStream_t>(part.end.stream)),
                "mark what comes behind a group");
    }
  } catch (const std::exception& error) {
    const std::scoped_lock lock(mutex_);
    Break(op, error.what(), true);
    throw;
  }
  const std::scoped_lock lock(mutex_);
  group->asked = true;
}

NcclWatch::Group& NcclWatch::Add(uint32_t op, std::span<const NcclEnd> ends) {
  if (n_groups_ >= kManyGroups) Drop();
  if (n_groups_ == groups_.size()) groups_.emplace_back();
  Group& group = groups_[n_groups_];
  group.op = op;
  group.n_parts = 0;
  group.asked = false;
  group.since.reset();
  for (const NcclEnd& end : ends) {
    const auto known = std::span(group.parts).first(group.n_parts);
    if (std::ranges::any_of(known, [&](const Part& p) { return p.end.stream == end.stream; })) {
      continue;
    }
    if (group.n_parts == group.parts.size()) group.parts.emplace_back();
    Part& part = group.parts[group.n_parts++];
    // Events are of a device; one made for another is not of use here.
    if (part.begun == nullptr || part.end.device != end.device) {
      const int gpu = comms_.gpu(static_cast<size_t>(end.device.value));
      part.begun = MakeOrderEvent(gpu);
      part.done = MakeOrderEvent(gpu);
    }
    part.end = end;
  }
  ++n_groups_;
  return group;
}

// The oldest that are done, to the end, where they are used again.
void NcclWatch::Drop() {
  const auto is_done = [](const Group& group) {
    return std::ranges::all_of(std::span(group.parts).first(group.n_parts),
                               [](const Part& part) { return Passed(part.done); });
  };
  while (n_groups_ > 0 && groups_.front().asked && is_done(groups_.front())) {
    groups_.push_back(std::move(groups_.front()));
    groups_.pop_front();
    --n_groups_;
  }
}

void NcclWatch::Break(uint32_t op, std::string what, bool told) {
  failure_ = TransportFailure{.op = op, .what = std::move(what)};
  told_ = told;
  comms_.Abort();
  n_groups_ = 0;
}

std::optional<TransportFailure> NcclWatch::TakeFailure() {
  const std::scoped_lock calling(calling_);
  const std::scoped_lock lock(mutex_);
  n_groups_ = 0;  // the queues are empty
  std::optional<TransportFailure> failure = std::exchange(failure_, std::nullopt);
  return told_ ? std::nullopt : failure;
}

void NcclWatch::Run() {
  // Of which device this thread's calls are; of none it would be the first of all.
  const OnDevice current(comms_.gpu(0), std::nothrow);
  const auto nap = std::min<std::chrono::nanoseconds>(kLongestNap, bound_ / 8);
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || n_groups_ > 0; });
    changed_.wait_for(lock, nap, [this] { return stopping_; });
    if (stopping_) return;
    const std::optional<TransportFailure> seen = Look();
    if (!seen) continue;
    lock.unlock();
    std::unique_lock calling(calling_, bound_ + kLongestNap);
    if (!calling.owns_lock()) {
      std::fputs(fmt::format("{} (in op {} of the step), and a call of NCCL's does not return: the "
                             "process ends\n",
                             seen->what, seen->op)
                     .c_str(),
                 stderr);
      std::abort();
    }
    lock.lock();
    // It may have come by now.
    if (const std::optional<TransportFailure> failure = Look()) {
      Break(failure->op, failure->what, false);
    }
  }
}

std::optional<TransportFailure> NcclWatch::Look() {
  for (size_t g = 0; g < n_groups_; ++g) {
    if (std::optional<TransportFailure> failure = LookAt(groups_[g])) return failure;
  }
  return std::nullopt;
}

std::optional<TransportFailure> NcclWatch::LookAt(Group& group) {
  const Part *waits = nullptr, *missing = nullptr;
  bool done = group.asked;
  try {
    for (const Part& part : std::span(group.parts).first(group.n_parts)) {
      if (group.asked && Passed(part.done)) continue;
      done = false;
      (Passed(part.begun) ? waits : missing) = &part;
    }
  } catch (const Error& error) {
    return TransportFailure{.op = group.op, .what = error.what()};
  }
  if (done) return std::nullopt;
  for (size_t rank = 0; rank < comms_.size() && comms_.made(); ++rank) {
    ncclResult_t error = ncclSuccess;
    const ncclResult_t status = ncclCommGetAsyncError(comms_.of(rank), &error);
    if (status != ncclSuccess) error = status;
    if (error == ncclSuccess || error == ncclInProgress) continue;
    return TransportFailure{
        .op = group.op,
        .what = fmt::format("link: path nccl: device {}: {}; NCCL_DEBUG=INFO says more, --path "
                            "names another",
                            rank, NcclMessage(error))};
  }
  if (waits == nullptr) {
    group.since.reset();
    return std::nullopt;
  }
  const Clock::time_point now = Clock::now();
  if (!group.since) group.since = now;
  if (now - *group.since < bound_) return std::nullopt;
  return TransportFailure{
      .op = group.op,
      .what = fmt::format(
          "link: path nccl: device {} waited {:.3g} s for {}, which never came; another path may: "
          "--path",
          waits->end.device.value, std::chrono::duration<double>(bound_).count(),
          missing == nullptr ? "its peer" : fmt::format("device {}", missing->end.device.value))};
}

}  // namespace tandem
