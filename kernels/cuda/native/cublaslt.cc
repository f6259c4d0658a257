// TileProducts by cuBLASLt.
//
// Its matrices are stored by columns, so y (rows, outputs) is to it D (outputs, rows) = A^T B, with
// A the tile of weights (cols, outputs) and B the rows (cols, rows): both as they lie, in the form
// that tensor cores take best. The first algorithm of its own ranking is taken that adds each
// output in one go (no split of the columns), and kept: a search by time would choose another one
// from run to run. cublasLtMatmul may be captured, but nothing here has been tried on a GPU.
#include <fmt/format.h>

#include <array>
#include <map>
#include <memory>
#include <type_traits>

#include "engine/base/error.h"
#include "kernels/cuda/native/cublaslt_library.h"
#include "kernels/cuda/tile_products.h"

namespace tandem::cuda {
namespace {

constexpr int kCandidates = 16;
constexpr uint32_t kInputAlign = 16, kOutputAlign = 64;  // bytes, of tile_products.h

[[noreturn]] void FailCublasLt(const std::string& what, cublasStatus_t status) {
  Fail(status == CUBLAS_STATUS_NOT_SUPPORTED ? ErrorCode::kUnsupported : ErrorCode::kDevice,
       fmt::format("kernels/cuda: cuBLASLt: {}: {} ({}); --prefill-products own does without it", what,
                   TheCublasLt().status_name(status), static_cast<int>(status)));
}

void CheckLt(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) FailCublasLt(what, status);
}

struct HandleDeleter {
  void operator()(cublasLtHandle_t handle) const noexcept { TheCublasLt().destroy(handle); }
};
struct DescDeleter {
  void operator()(cublasLtMatmulDesc_t desc) const noexcept { TheCublasLt().desc_destroy(desc); }
};
struct LayoutDeleter {
  void operator()(cublasLtMatrixLayout_t layout) const noexcept {
    TheCublasLt().layout_destroy(layout);
  }
};
struct PreferenceDeleter {
  void operator()(cublasLtMatmulPreference_t preference) const noexcept {
    TheCublasLt().preference_destroy(preference);
  }
};
using Handle = std::unique_ptr<std::remove_pointer_t<cublasLtHandle_t>, HandleDeleter>;
using Desc = std::unique_ptr<std::remove_pointer_t<cublasLtMatmulDesc_t>, DescDeleter>;
using Layout = std::unique_ptr<std::remove_pointer_t<cublasLtMatrixLayout_t>, LayoutDeleter>;
using Preference =
    std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>, PreferenceDeleter>;

Layout MakeLayout(cudaDataType type, uint64_t rows, uint64_t cols, uint64_t stride) {
  cublasLtMatrixLayout_t layout = nullptr;
  CheckLt(TheCublasLt().layout_create(&layout, type, rows, cols, static_cast<int64_t>(stride)),
          "make a layout");
  return Layout(layout);
}

template <typename T>
void Set(const Desc& desc, cublasLtMatmulDescAttributes_t attribute, T value) {
  CheckLt(TheCublasLt().desc_set(desc.get(), attribute, &value, sizeof(value)),
          "describe a product");
}
template <typename T>
void Set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  CheckLt(TheCublasLt().preference_set(preference.get(), attribute, &value, sizeof(value)),
          "say what is preferred");
}

// What is kept of products of one shape.
struct Shape {
  Layout w, x, y;
  uint64_t y_stride = 0;  // that y has
  cublasLtMatmulAlgo_t algorithm{};
};

class CublasLtProducts final : public TileProducts {
 public:
  explicit CublasLtProducts(const TileProductsOptions& options) : options_(options) {
    const CublasLt& lt = TheCublasLt();
    cublasLtHandle_t handle = nullptr;
    CheckLt(lt.create(&handle), "make a handle");
    handle_.reset(handle);
    cublasLtMatmulDesc_t desc = nullptr;
    CheckLt(lt.desc_create(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describe a product");
    desc_.reset(desc);
    Set(desc_, CUBLASLT_MATMUL_DESC_TRANSA, static_cast<int32_t>(CUBLAS_OP_T));
    Set(desc_, CUBLASLT_MATMUL_DESC_TRANSB, static_cast<int32_t>(CUBLAS_OP_N));
    if (options.sm_count > 0) {
      Set(desc_, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, static_cast<int32_t>(options.sm_count));
    }
  }

  std::string name() const override {
    const size_t version = TheCublasLt().version();
    return fmt::format("cublaslt/{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  }

  void Multiply(const TileProduct& product, void* stream) override {
    Shape& shape = ShapeOf(product);
    if (shape.y_stride != product.y_stride) {
      const auto stride = static_cast<int64_t>(product.y_stride);
      CheckLt(TheCublasLt().layout_set(shape.y.get(), CUBLASLT_MATRIX_LAYOUT_LD, &stride,
                                       sizeof(stride)),
              "set a stride");
      shape.y_stride = product.y_stride;
    }
    const float one = 1.0f, beta = product.adds ? 1.0f : 0.0f;
    CheckLt(TheCublasLt().matmul(handle_.get(), desc_.get(), &one, product.w, shape.w.get(),
                                 product.x, shape.x.get(), &beta, product.y, shape.y.get(),
                                 product.y, shape.y.get(), &shape.algorithm, options_.workspace,
                                 options_.workspace_bytes, static_cast<cudaStream_t>(stream)),
            "start a product");
  }

 private:
  Shape& ShapeOf(const TileProduct& product) {
    const std::array<uint64_t, 3> key{product.outputs, product.cols, product.x_stride};
    const auto found = shapes_.find(key);
    if (found != shapes_.end()) return found->second;
    Shape shape;
    shape.w = MakeLayout(CUDA_R_16BF, product.cols, product.outputs, product.cols);
    shape.x = MakeLayout(CUDA_R_16BF, product.cols, options_.rows, product.x_stride);
    // A stride of its own: the choice is not to depend on where the first result goes.
    shape.y = MakeLayout(CUDA_R_32F, product.outputs, options_.rows, product.outputs);
    shape.y_stride = product.outputs;
    shape.algorithm = Choose(product, shape);
    return shapes_.emplace(key, std::move(shape)).first->second;
  }

  cublasLtMatmulAlgo_t Choose(const TileProduct& product, const Shape& shape) const {
    const CublasLt& lt = TheCublasLt();
    cublasLtMatmulPreference_t made = nullptr;
    CheckLt(lt.preference_create(&made), "say what is preferred");
    const Preference preference(made);
    Set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, options_.workspace_bytes);
    Set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE));
    Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, kInputAlign);
    Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, kInputAlign);
    Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, kOutputAlign);
    Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, kOutputAlign);
    cublasLtMatmulHeuristicResult_t results[kCandidates] = {};
    int count = 0;
    const cublasStatus_t status =
        lt.heuristic(handle_.get(), desc_.get(), shape.w.get(), shape.x.get(), shape.y.get(),
                     shape.y.get(), preference.get(), kCandidates, results, &count);
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < count; ++i) {
      if (results[i].state == CUBLAS_STATUS_SUCCESS &&
          results[i].workspaceSize <= options_.workspace_bytes && AddsInOneGo(results[i].algo)) {
        return results[i].algo;
      }
    }
    FailCublasLt(fmt::format("an algorithm for {} outputs by {} rows of {} BF16 columns that does "
                             "not split the columns (of {} that it offers)",
                             product.outputs, options_.rows, product.cols, count),
                 status == CUBLAS_STATUS_SUCCESS ? CUBLAS_STATUS_NOT_SUPPORTED : status);
  }

  // Where an algorithm does not tell, the preference has ruled it out already.
  static bool AddsInOneGo(const cublasLtMatmulAlgo_t& algorithm) {
    int32_t splits = 1;
    size_t written = 0;
    const cublasStatus_t status = TheCublasLt().algo_get(
        &algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof(splits), &written);
    return status != CUBLAS_STATUS_SUCCESS || splits <= 1;
  }

  const TileProductsOptions options_;
  Handle handle_;
  Desc desc_;
  std::map<std::array<uint64_t, 3>, Shape> shapes_;
};

}  // namespace

std::unique_ptr<TileProducts> MakeTileProducts(const TileProductsOptions& options) {
  return std::make_unique<CublasLtProducts>(options);
}

}  // namespace tandem::cuda
