#include "engine/base/error.h"
#include "engine/link/cuda/nccl_transport.h"

namespace tandem {

std::unique_ptr<Transport> MakeNcclTransport(const NcclSetup&) {
  Fail(
      ErrorCode::kUnsupported,
      "link: path nccl: this tandem was built without NCCL (want nccl.h and its library when it is "
      "built); name another path: --path copy, host_staged");
}

}  // namespace tandem
