// What an op reads that the host holds - ids, positions, pages, tiles - brought to the GPU. All
// layers of a step bring the same: what is there already is not copied again.
//
// Copies go through a ring of pinned host memory, so the caller's spans are free when Put returns.
// Thread rule: one host thread.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "engine/device/device.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/runtime.h"

namespace tandem::cuda {

// Two halves; one is filled while the copies out of the other end.
class PinnedRing {
 public:
  PinnedRing(size_t half_bytes, void* stream);
  // Starts a copy of `bytes` to the GPU; `from` has been read on return.
  void Copy(void* to, const std::byte* from, size_t bytes);

 private:
  size_t half_bytes_;
  void* stream_;
  PinnedMemory memory_;
  EventHandle left_[2];  // recorded when a half was left
  bool waits_[2] = {false, false};
  size_t half_ = 0;
  size_t used_ = 0;
};

// Memory of the GPU that grows on demand; its content does not outlive growth.
class GrowingBuffer {
 public:
  GrowingBuffer(Device& device, void* stream, std::string_view what)
      : device_(device), stream_(stream), what_(what) {}
  std::byte* Reserve(size_t bytes);
  // Room for `bytes` and no more: memory that stays where it is while no more is asked for.
  void Fix(size_t bytes);

 private:
  Device& device_;
  void* stream_;
  std::string what_;
  Buffer buffer_;
};

// One table, with the host's copy of what the GPU holds.
class StepTable {
 public:
  StepTable(Device& device, void* stream, PinnedRing& ring, std::string_view what)
      : ring_(ring), buffer_(device, stream, what) {}

  // `rows` in the GPU's memory; valid until the next Put. `changed`: it was copied.
  template <typename T>
  const T* Put(std::span<const T> rows, bool* changed = nullptr) {
    const bool copied =
        PutBytes(reinterpret_cast<const std::byte*>(rows.data()), rows.size_bytes());
    if (changed != nullptr) *changed = copied;
    return reinterpret_cast<const T*>(data_);
  }

 private:
  bool PutBytes(const std::byte* from, size_t bytes);

  PinnedRing& ring_;
  GrowingBuffer buffer_;
  std::byte* data_ = nullptr;
  std::vector<std::byte> held_;
};

// Where the rows of a sequence stand; returns the end of what was written.
RowPlace* PlaceRows(const SequenceRows& sequence, RowPlace* to);
// Radians a position of each pair: as given, or from theta.
std::vector<double> FrequenciesOf(const RopeParams& rope);

}  // namespace tandem::cuda
