// Products of many rows by a library: a tile of the weights is unpacked to BF16, multiplied with
// all rows, and the next tile follows in its place.
//
// Rows come in calls of exactly room.rows, the last one padded with whatever lies behind: their
// products go to a place of their own, from which the rows that exist are copied. So a row's bits
// depend on the weights and which part of them was asked for, never on the other rows, as far as
// the library computes all rows of a call alike and a call the same way every time
// (kernels/README.md). A matrix too wide for a tile is cut along its columns, and the parts' sums
// are added in order.
//
//   LibraryProducts library(memory, room, sm_count);
//   if (n >= room.least_rows()) library.Multiply(type, part, cols, n, rows, stream);
//
// Thread rule: one host thread, with the GPU as its current device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/device/device.h"
#include "kernels/cuda/library_room.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/tile_products.h"

namespace tandem::cuda {

struct TileShape {
  uint32_t panels = 0;  // of 16 outputs; the last tile may have fewer
  uint32_t cols = 0;    // likewise
};
// How a matrix of `panels` panels by `cols` columns (a multiple of 64) is cut for a GPU of so many
// multiprocessors: into tiles that keep them busy, counting a multiprocessor's work in blocks of
// 128 outputs by 256 rows, and where that leaves a choice, into tiles that the cache holds. By
// arithmetic; not yet measured.
TileShape ShapeTiles(uint32_t panels, uint32_t cols, const LibraryRoom& room, int sm_count);

class LibraryProducts {
 public:
  // Takes room.bytes() of `memory`. sm_count: of the stream; `part`: it is not all of the GPU.
  // Throws as MakeTileProducts.
  LibraryProducts(Device& memory, const LibraryRoom& room, int sm_count, bool part);

  const LibraryRoom& room() const { return room_; }
  std::string name() const { return products_->name(); }

  // Columns of rows: whole 64, zeros past the end.
  static uint32_t Stride(uint32_t cols);
  // `x` (n rounded up to room.rows, Stride(cols)); rows from n on may hold anything.
  void Multiply(DType type, const MatMulPart& part, uint32_t cols, uint32_t n, const uint16_t* x,
                const GpuStream& stream);

 private:
  struct Job;
  struct Tile;
  void Unpack(const Job& job, const Tile& tile, uint32_t col, uint32_t width);
  uint32_t MultiplyRows(const Job& job, const Tile& tile, uint32_t first);

  const LibraryRoom room_;
  const int sm_count_;
  Buffer weights_, outputs_, workspace_;
  std::unique_ptr<TileProducts> products_;
};

}  // namespace tandem::cuda
