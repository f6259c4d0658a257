// The shapes in which products of many rows are handed to a library, and the memory it takes.
#pragma once

#include <cstdint>

namespace tandem {

struct LibraryRoom {
  // Of every call: fewer are padded, so that how a row is added up cannot depend on how many there
  // are. Calls of less than half are not handed on.
  uint32_t rows = 512;
  // A tile of weights as BF16: the most, and what the L2 cache of a large GPU still holds while
  // the tile is multiplied.
  uint64_t weight_bytes = uint64_t{64} << 20;
  uint64_t near_bytes = uint64_t{32} << 20;
  // Products that cannot be written to their place at once.
  uint64_t output_bytes = uint64_t{32} << 20;
  // The library's own; what cuBLAS asks for on Hopper.
  uint64_t workspace_bytes = uint64_t{32} << 20;

  constexpr uint32_t least_rows() const { return rows / 2; }
  constexpr uint64_t bytes() const { return weight_bytes + output_bytes + workspace_bytes; }
};

// For an engine whose steps have at most `step_rows` rows. More rows fill a GPU better: 4096
// outputs by 512 rows are 64 tiles of 128 x 256, on an H200 of 132 multiprocessors.
constexpr LibraryRoom LibraryRoomFor(uint32_t step_rows) {
  LibraryRoom room;
  room.rows = 256;
  while (room.rows < 2048 && 2 * room.rows <= step_rows) room.rows *= 2;
  return room;
}

}  // namespace tandem
