// NCCL's results as Errors, and what else its callers share. For the files of this folder alone: it
// includes NCCL's header.
#pragma once

#include <nccl.h>

#include <atomic>
#include <span>
#include <string>
#include <vector>

namespace tandem {

// Throws Error(kDevice) naming `what` and NCCL's words for it.
void CheckNccl(ncclResult_t status, const std::string& what);
// "unhandled cuda error: ...".
std::string NcclMessage(ncclResult_t status);

// Calls that NCCL launches together. A group that is left by a failure ends too, or the thread's
// later groups would be parts of it, which launch nothing and say that all is well.
//
//   NcclGroup group;
//   CheckNccl(ncclSend(...), "send");
//   group.Launch();
class NcclGroup {
 public:
  NcclGroup() { CheckNccl(ncclGroupStart(), "begin a group"); }
  ~NcclGroup() {
    if (open_) ncclGroupEnd();
  }
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  void Launch() {
    open_ = false;
    CheckNccl(ncclGroupEnd(), "launch a group");
  }

 private:
  bool open_ = true;
};

// One communicator a GPU, by rank, of this process; destroyed with it.
class NcclComms {
 public:
  explicit NcclComms(std::span<const int> gpus) : gpus_(gpus.begin(), gpus.end()) { Make(); }
  ~NcclComms() { Destroy(); }
  NcclComms(const NcclComms&) = delete;
  NcclComms& operator=(const NcclComms&) = delete;

  // A call that failed may leave communicators in doubt: then these are destroyed, and others made.
  void Destroy() noexcept;
  // Ends what runs on them as well.
  void Abort() noexcept;
  // Throws Error(kDevice), and then has none.
  void Make();
  bool made() const { return !comms_.empty(); }
  // Which making these are of; what was registered with others is gone.
  uint32_t making() const { return making_; }

  size_t size() const { return gpus_.size(); }
  ncclComm_t of(size_t rank) const { return comms_[rank]; }
  int gpu(size_t rank) const { return gpus_[rank]; }

 private:
  const std::vector<int> gpus_;
  std::vector<ncclComm_t> comms_;
  std::atomic<uint32_t> making_{0};
};

}  // namespace tandem
