#include "engine/link/cuda/nccl_calls.h"

#include <fmt/format.h>

#include "engine/base/error.h"

namespace tandem {

std::string NcclMessage(ncclResult_t status) {
  const char* last = ncclGetLastError(nullptr);
  std::string text = ncclGetErrorString(status);
  if (last != nullptr && *last != '\0') text += fmt::format(": {}", last);
  return text;
}

void CheckNccl(ncclResult_t status, const std::string& what) {
  if (status == ncclSuccess || status == ncclInProgress) return;
  Fail(ErrorCode::kDevice,
       fmt::format("link: path nccl: {}: {}; NCCL_DEBUG=INFO says more, --path names another", what,
                   NcclMessage(status)));
}

void NcclComms::Make() {
  comms_.assign(gpus_.size(), nullptr);
  const ncclResult_t status =
      ncclCommInitAll(comms_.data(), static_cast<int>(gpus_.size()), gpus_.data());
  // Some may be there when others are not.
  if (status != ncclSuccess) Abort();
  CheckNccl(status, "make communicators");
}

void NcclComms::Destroy() noexcept {
  for (ncclComm_t comm : comms_) {
    if (comm != nullptr) ncclCommDestroy(comm);
  }
  comms_.clear();
  ++making_;
}

void NcclComms::Abort() noexcept {
  for (ncclComm_t comm : comms_) {
    if (comm != nullptr) ncclCommAbort(comm);
  }
  comms_.clear();
  ++making_;
}

}  // namespace tandem
