#include "engine/device/memory_ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/error.h"

namespace tandem {
namespace {

constexpr const char* kUseNames[kMemoryUses] = {"weights", "slots", "kv", "activations",
                                                "workspace"};

size_t Index(MemoryUse use) {
  const auto index = static_cast<size_t>(use);
  Check(index < kMemoryUses, "memory ledger: unknown use");
  return index;
}

Bytes Sum(const std::array<Bytes, kMemoryUses>& used) {
  Bytes total;
  for (Bytes bytes : used) total += bytes;
  return total;
}

std::string Table(const std::array<Bytes, kMemoryUses>& used) {
  std::string table;
  for (size_t i = 0; i < kMemoryUses; ++i) {
    table += fmt::format("{}{} {}", i == 0 ? "" : ", ", kUseNames[i], used[i].value);
  }
  return table;
}

}  // namespace

const char* ToString(MemoryUse use) { return kUseNames[Index(use)]; }

MemoryLedger::MemoryLedger(std::string owner, Bytes capacity)
    : owner_(std::move(owner)), capacity_(capacity) {}

void MemoryLedger::Book(MemoryUse use, Bytes bytes, std::string_view what) {
  std::lock_guard lock(mutex_);
  const Bytes used = Sum(used_);
  if (frozen_) {
    Fail(ErrorCode::kDevice,
         fmt::format("memory of {}: {} bytes for {} ({}) were asked for after loading ended (want "
                     "all memory booked at load); book it when the engine is built",
                     owner_, bytes.value, what, ToString(use)));
  }
  // The comparison is written so that a hostile size cannot wrap around.
  if (capacity_.value != 0 && (used > capacity_ || bytes > capacity_ - used)) {
    const uint64_t free = used > capacity_ ? 0 : (capacity_ - used).value;
    Fail(ErrorCode::kDevice,
         fmt::format("memory of {}: {} bytes for {} ({}) do not fit: {} of {} bytes are free, {} "
                     "are missing (held: {}); use a smaller context, fewer slots or another split",
                     owner_, bytes.value, what, ToString(use), free, capacity_.value,
                     bytes.value - free, Table(used_)));
  }
  used_[Index(use)] += bytes;
  peak_ = std::max(peak_, used + bytes);
  ++allocations_;
}

void MemoryLedger::Release(MemoryUse use, Bytes bytes) {
  std::lock_guard lock(mutex_);
  Bytes& held = used_[Index(use)];
  Check(held >= bytes, "memory ledger: more released than was booked");
  held = held - bytes;
}

bool MemoryLedger::Fits(Bytes bytes) const {
  std::lock_guard lock(mutex_);
  const Bytes used = Sum(used_);
  return capacity_.value == 0 || (used <= capacity_ && bytes <= capacity_ - used);
}

Bytes MemoryLedger::used() const {
  std::lock_guard lock(mutex_);
  return Sum(used_);
}

Bytes MemoryLedger::used(MemoryUse use) const {
  std::lock_guard lock(mutex_);
  return used_[Index(use)];
}

Bytes MemoryLedger::peak() const {
  std::lock_guard lock(mutex_);
  return peak_;
}

uint64_t MemoryLedger::allocations() const {
  std::lock_guard lock(mutex_);
  return allocations_;
}

void MemoryLedger::Freeze(bool frozen) {
  std::lock_guard lock(mutex_);
  frozen_ = frozen;
}

}  // namespace tandem
