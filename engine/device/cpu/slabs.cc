#include "engine/device/cpu/slabs.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

namespace tandem {
namespace {

constexpr size_t kSlab = 16 * kHugePage;
constexpr size_t kLine = 64;

}  // namespace

std::byte* AllocateHuge(size_t size) {
  if (size > SIZE_MAX - kHugePage) return nullptr;
  const size_t rounded = (size + kHugePage - 1) / kHugePage * kHugePage;
  void* data = std::aligned_alloc(kHugePage, rounded);
  if (data != nullptr) madvise(data, rounded, MADV_HUGEPAGE);
  return static_cast<std::byte*>(data);
}

Slabs::~Slabs() {
  for (const Slab& slab : slabs_) std::free(slab.data);
}

std::byte* Slabs::Take(size_t size) {
  const size_t rounded = (size + kLine - 1) / kLine * kLine;
  if (slabs_.empty() || kSlab - slabs_.back().used < rounded) {
    std::byte* data = AllocateHuge(kSlab);
    if (data == nullptr) return nullptr;
    slabs_.push_back(Slab{data, 0, 0});
  }
  Slab& slab = slabs_.back();
  std::byte* piece = slab.data + slab.used;
  slab.used += rounded;
  ++slab.pieces;
  return piece;
}

bool Slabs::Give(std::byte* data) noexcept {
  for (size_t i = 0; i < slabs_.size(); ++i) {
    Slab& slab = slabs_[i];
    if (data < slab.data || data >= slab.data + kSlab) continue;
    if (--slab.pieces == 0) {
      std::free(slab.data);
      slabs_.erase(slabs_.begin() + static_cast<std::ptrdiff_t>(i));
    }
    return true;
  }
  return false;
}

}  // namespace tandem
