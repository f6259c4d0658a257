// Products of one fixed height by a library, as library_products.h cuts them: cuBLASLt
// (native/cublaslt.cc), or plain loops where the GPU is emulated.
//
// Thread rule: one host thread, with the GPU as its current device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace tandem::cuda {

// y (rows, outputs) = x (rows, cols) * w (outputs, cols)^T, or added to what y holds. BF16 by BF16,
// multiplied and added in f32. outputs is a multiple of 16, cols of 64; all pointers and strides
// are multiples of 16 bytes, and y's of 64.
struct TileProduct {
  uint32_t outputs = 0;
  uint32_t cols = 0;
  const uint16_t* w = nullptr;
  const uint16_t* x = nullptr;
  uint64_t x_stride = 0;  // elements from row to row
  float* y = nullptr;
  uint64_t y_stride = 0;
  bool adds = false;
};

class TileProducts {
 public:
  virtual ~TileProducts() = default;
  virtual std::string name() const = 0;  // "cublaslt/13.1.0", recorded with results
  // Starts it on the stream. How an output is added up depends on outputs, cols and x_stride alone:
  // it is chosen when the three are first met. Throws Error(kUnsupported | kDevice).
  virtual void Multiply(const TileProduct& product, void* stream) = 0;
};

struct TileProductsOptions {
  uint32_t rows = 0;  // of every product
  int sm_count = 0;   // multiprocessors that it has; 0: all of the GPU's
  std::byte* workspace = nullptr;
  uint64_t workspace_bytes = 0;
};
// Of the current device. Throws Error(kUnsupported), with what was looked for, where the library is
// not there or is another version.
std::unique_ptr<TileProducts> MakeTileProducts(const TileProductsOptions& options);

}  // namespace tandem::cuda
