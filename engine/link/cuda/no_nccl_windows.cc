#include "engine/link/cuda/nccl_windows.h"

namespace tandem {

std::unique_ptr<DirectCollectives> MakeNcclWindowSums(NcclComms&, NcclWatch&,
                                                      std::span<const std::unique_ptr<WireOps>>,
                                                      std::string& why) {
  why = "this tandem was built with an NCCL that has none (want 2.27 or later)";
  return nullptr;
}

}  // namespace tandem
