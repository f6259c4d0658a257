// Rows prepared for products, and the products: which kernels run, or whether a library does.
//
// Thread rule: one host thread, with the GPU as its current device.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/library_products.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/runtime.h"
#include "kernels/ops.h"

namespace tandem::cuda {

uint64_t PanelBytes(DType type, const MatrixSlice& slice);
// Throws where n is beyond what kernels count to.
uint32_t Narrow(uint64_t n);

class Products {
 public:
  // Throws as LibraryProducts.
  Products(const CudaOpsOptions& options, const GpuFacts& facts);

  // "": kernels alone.
  std::string library() const { return library_ != nullptr ? library_->name() : ""; }
  // What n rows become that meet weights of this type. `recorded`: for a step that is recorded,
  // which no library takes part in; the same for rows and their products.
  RowForm FormOf(DType weights, uint64_t n, bool recorded) const;
  uint64_t PreparedBytes(uint64_t n, uint64_t cols) const;
  PreparedRows Prepare(const PrepareCall& call, RowForm form, Int8Parts parts, std::byte* scratch,
                       const GpuStream& stream) const;
  void MatMul(const PreparedRows& x, std::span<const MatMulTask> tasks, bool recorded,
              const GpuStream& stream);

 private:
  bool ByLibrary(uint64_t n, bool recorded) const {
    return library_ != nullptr && !recorded && n >= library_->room().least_rows();
  }
  void LaunchCall(DType type, MatMulCall call, const GpuStream& stream) const;

  const ActivationType activations_;
  const GpuFacts facts_;
  std::unique_ptr<LibraryProducts> library_;  // null: not asked for
};

}  // namespace tandem::cuda
