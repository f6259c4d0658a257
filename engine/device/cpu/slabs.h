// Memory in slabs of huge pages, for the many pieces smaller than one: the weights of a block, its
// norms, a value. A decode step walks all weights once; with 4 KiB pages the page walks, which cost
// double on a virtual machine, can take it longer than the reading.
//
// Pieces are cut front to back; a slab goes back to the system when its last piece does. One thread
// at a time.
#pragma once

#include <cstddef>
#include <vector>

namespace tandem {

inline constexpr size_t kHugePage = size_t{2} << 20;

class Slabs {
 public:
  Slabs() = default;
  ~Slabs();
  Slabs(const Slabs&) = delete;
  Slabs& operator=(const Slabs&) = delete;

  // `size` bytes (less than kHugePage), aligned to 64, of any content; null when the system
  // refuses.
  std::byte* Take(size_t size);
  // Gives a piece back. False when `data` is not one of this object's.
  bool Give(std::byte* data) noexcept;

 private:
  struct Slab {
    std::byte* data;
    size_t used;
    size_t pieces;  // taken and not given back
  };
  std::vector<Slab> slabs_;  // the last one is cut from
};

// Memory that starts on a huge page and asks for huge pages; free() frees it. Null when refused.
std::byte* AllocateHuge(size_t size);

}  // namespace tandem
