// Where a plan's weights in the host's memory lie: page-locked, from which a device copies at the
// full rate of its link, as far as such memory goes; the rest in ordinary memory, from which they
// cross through a ring (engine/link/staging_ring.h). Page-locked memory goes as far as its limit
// (--pinned-memory) less what the plan's steps need of it, and as far as the system grants it.
//
// The copy is a repacked one. The mapped model file itself cannot be registered in its place: the
// GPUs' layout is panels of 16 rows (kernels/cuda/layout.h), which no matrix of a model file has,
// whatever its type.
//
//   HostWeights host(backend, workspace);
//   HostWeights::Piece piece = host.Take(Bytes{1 << 20}, "weights of b3");
#pragma once

#include <string_view>

#include "engine/run/backend.h"

namespace tandem {

class HostWeights {
 public:
  struct Piece {
    Buffer buffer;
    bool page_locked = true;  // or of a host whose kinds of memory are one
  };

  // `workspace` is what everything else takes of the back end's page-locked memory. Throws
  // Error(kDevice) with the figures where the limit is less than that.
  HostWeights(Backend& backend, Bytes workspace);

  // Throws Error(kDevice) where neither kind of memory has room.
  Piece Take(Bytes bytes, std::string_view what);

  Bytes page_locked() const { return page_locked_; }
  Bytes pageable() const { return pageable_; }

 private:
  bool HasRoom(Bytes bytes) const;

  Backend& backend_;
  const Bytes workspace_;
  bool refused_ = false;  // the system has refused page-locked memory once
  Bytes page_locked_, pageable_;
};

// How much of the host's memory is page-locked at most where nobody says: three quarters. What is
// locked the system can use for nothing else.
Bytes DefaultPinnedLimit(Bytes host_memory);

}  // namespace tandem
