// NCCL's results as Errors, and what else its callers share. For the files of this folder alone: it
// includes NCCL's header.
#pragma once

#include <nccl.h>

#include <span>
#include <string>
#include <vector>

namespace tandem {

// Throws Error(kDevice) naming `what` and NCCL's words for it.
void CheckNccl(ncclResult_t status, const std::string& what);
// "unhandled cuda error: ...".
std::string NcclMessage(ncclResult_t status);

// One communicator a GPU, by rank, of this process; destroyed with it.
class NcclComms {
 public:
  explicit NcclComms(std::span<const int> gpus) : gpus_(gpus.begin(), gpus.end()) { Make(); }
  ~NcclComms() { Destroy(); }
  NcclComms(const NcclComms&) = delete;
  NcclComms& operator=(const NcclComms&) = delete;

  // A call that failed may leave communicators in doubt: then these are destroyed, and others made.
  void Destroy() noexcept;
  void Make();

  size_t size() const { return gpus_.size(); }
  ncclComm_t of(size_t rank) const { return comms_[rank]; }
  int gpu(size_t rank) const { return gpus_[rank]; }

 private:
  const std::vector<int> gpus_;
  std::vector<ncclComm_t> comms_;
};

}  // namespace tandem
