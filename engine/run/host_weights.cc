#include "engine/run/host_weights.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "engine/base/error.h"

namespace tandem {

HostWeights::HostWeights(Backend& backend, Bytes workspace)
    : backend_(backend), workspace_(workspace) {
  const Bytes limit = backend.host().ledger().capacity();
  if (backend.pageable_host() == nullptr || limit.value == 0 || workspace <= limit) return;
  Fail(ErrorCode::kDevice,
       fmt::format("memory of host: a step needs {} bytes of page-locked memory (logits, staging, "
                   "the ring that weights cross through), and at most {} may be locked; raise "
                   "--pinned-memory to {:.3f} GiB or more",
                   workspace.value, limit.value,
                   static_cast<double>(workspace.value) / static_cast<double>(1 << 30)));
}

bool HostWeights::HasRoom(Bytes bytes) const {
  if (backend_.pageable_host() == nullptr) return true;
  if (refused_) return false;
  const Bytes limit = backend_.host().ledger().capacity();
  if (limit.value == 0) return true;
  const Bytes taken = page_locked_ + workspace_;
  return taken <= limit && bytes <= limit - taken;
}

HostWeights::Piece HostWeights::Take(Bytes bytes, std::string_view what) {
  if (backend_.pageable_host() == nullptr) {
    return Piece{backend_.host().Allocate(MemoryUse::kWeights, bytes, what), true};
  }
  if (HasRoom(bytes)) {
    if (auto buffer = backend_.host().TryAllocate(MemoryUse::kWeights, bytes, what)) {
      page_locked_ += bytes;
      return Piece{std::move(*buffer), true};
    }
    refused_ = true;
  }
  Device& pageable = *backend_.pageable_host();
  Piece piece{pageable.Allocate(MemoryUse::kWeights, bytes, what), false};
  pageable_ += bytes;
  return piece;
}

Bytes DefaultPinnedLimit(Bytes host_memory) { return Bytes{host_memory.value / 4 * 3}; }

}  // namespace tandem
