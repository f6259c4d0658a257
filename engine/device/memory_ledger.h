// Who holds how much of a device's memory. Every large allocation goes through one ledger a device,
// with a use and a name, so that "why does it not fit" has an answer and tests can assert that a
// decode step allocates nothing.
//
// Thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/units.h"

namespace tandem {

enum class MemoryUse : uint8_t { kWeights, kSlots, kKv, kActivations, kWorkspace };
inline constexpr size_t kMemoryUses = 5;
const char* ToString(MemoryUse use);  // "weights", ...

class MemoryLedger {
 public:
  // `capacity` of zero means unlimited. `owner` is for messages: "d0", "host".
  MemoryLedger(std::string owner, Bytes capacity);

  // Books an allocation; throws Error(kDevice) with the table of holders when it does not fit.
  void Book(MemoryUse use, Bytes bytes, std::string_view what);
  void Release(MemoryUse use, Bytes bytes);
  // Whether so much more is within the capacity now.
  bool Fits(Bytes bytes) const;

  Bytes capacity() const { return capacity_; }
  Bytes used() const;
  Bytes used(MemoryUse use) const;
  Bytes peak() const;
  uint64_t allocations() const;  // how many were ever booked
  // Books nothing from here on: a further Book() is an error. For the no-allocation test.
  void Freeze(bool frozen);

 private:
  mutable std::mutex mutex_;
  std::string owner_;
  Bytes capacity_;
  std::array<Bytes, kMemoryUses> used_{};
  Bytes peak_;
  uint64_t allocations_ = 0;
  bool frozen_ = false;
};

}  // namespace tandem
