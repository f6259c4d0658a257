// The library of products where a GPU is emulated: plain loops, in order of columns.
#include "kernels/cuda/tile_products.h"

#include "engine/base/check.h"
#include "tests/support/cuda_emulation/emulation.h"
#include "tests/support/cuda_emulation/multiply_bf16.h"

namespace tandem::cuda {
namespace {

class PlainProducts final : public TileProducts {
 public:
  explicit PlainProducts(const TileProductsOptions& options) : options_(options) {}

  std::string name() const override { return "plain"; }

  void Multiply(const TileProduct& product, void* stream) override {
    const auto aligned = [](const void* at, uint64_t to) {
      return reinterpret_cast<uintptr_t>(at) % to == 0;
    };
    Check(product.outputs > 0 && product.outputs % 16 == 0, "tile product: outputs");
    Check(product.cols > 0 && product.cols % 64 == 0, "tile product: columns");
    Check(aligned(product.w, 16) && aligned(product.x, 16) && aligned(product.y, 64),
          "tile product: alignment");
    Check(product.x_stride >= product.cols && product.x_stride % 8 == 0, "tile product: x");
    Check(product.y_stride >= product.outputs && product.y_stride % 16 == 0, "tile product: y");
    InStream(stream, "plain product", [product, rows = options_.rows] {
      MultiplyBf16({.w = product.w,
                    .w_stride = product.cols,
                    .x = product.x,
                    .x_stride = product.x_stride,
                    .y = product.y,
                    .y_stride = product.y_stride,
                    .rows = rows,
                    .outputs = product.outputs,
                    .cols = product.cols,
                    .adds = product.adds});
    });
  }

 private:
  const TileProductsOptions options_;
};

}  // namespace

std::unique_ptr<TileProducts> MakeTileProducts(const TileProductsOptions& options) {
  return std::make_unique<PlainProducts>(options);
}

}  // namespace tandem::cuda
