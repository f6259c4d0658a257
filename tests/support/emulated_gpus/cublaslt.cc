// The functions of cuBLASLt that the engine calls, over the emulated machine: products as loops, on
// the time of their stream. It takes the one form of product that the engine asks for, and refuses
// what the real one may not take: other types or orders, strides that overlap, addresses less
// aligned than was promised, memory of another device or beyond its end, a workspace too small, an
// algorithm that is another shape's.
//
// TANDEM_EMULATED_CUBLASLT=absent: as on a machine that lacks it.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>

#include "kernels/cuda/native/cublaslt_library.h"
#include "tests/support/cuda_emulation/multiply_bf16.h"
#include "tests/support/emulated_gpus/machine.h"

struct cublasLtContext {
  int device = 0;
};

namespace tandem::cuda {

// Of emulation.h, whose dim3 is another than the toolkit's.
void InStream(void* stream, const char* what, std::function<void()> work);

namespace {

using emulated::Machine;
using emulated::Place;

constexpr size_t kWorkspaceBytes = 4096;  // what the algorithm says that it takes
constexpr uint64_t kAlgorithm = 0x7a11;
constexpr uint64_t kScribble = 0xfffefffefffefffe;

struct Desc {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  int32_t sm_count = 0;
};
struct Layout {
  cudaDataType type;
  uint64_t rows, cols;
  int64_t ld;

  size_t element() const { return type == CUDA_R_32F ? 4 : 2; }
  size_t bytes() const { return ((cols - 1) * static_cast<uint64_t>(ld) + rows) * element(); }
  // Columns apart, and each as aligned as their first.
  bool IsSound(uint32_t align) const {
    return rows > 0 && cols > 0 && ld >= static_cast<int64_t>(rows) &&
           static_cast<uint64_t>(ld) * element() % align == 0;
  }
};
struct Preference {
  uint64_t workspace = 0;
  uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint32_t align_a = 256, align_b = 256, align_c = 256, align_d = 256;
};
// What an algorithm holds: only the shape that it was chosen for may run by it.
struct Algorithm {
  uint64_t kind, m, n, k, splits, align_in, align_out, unused;
};
static_assert(sizeof(Algorithm) == sizeof(cublasLtMatmulAlgo_t));

Desc* Of(cublasLtMatmulDesc_t desc) { return reinterpret_cast<Desc*>(desc); }
Layout* Of(cublasLtMatrixLayout_t layout) { return reinterpret_cast<Layout*>(layout); }
Preference* Of(cublasLtMatmulPreference_t preference) {
  return reinterpret_cast<Preference*>(preference);
}

template <typename T>
cublasStatus_t Store(T& to, const void* from, size_t size) {
  if (from == nullptr || size != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, from, size);
  return CUBLAS_STATUS_SUCCESS;
}

// D (m, n) = A^T B with A (k, m) and B (k, n), BF16 into f32, all by columns.
bool IsKnownForm(const Desc& desc, const Layout& a, const Layout& b, const Layout& c,
                 const Layout& d) {
  return desc.compute == CUBLAS_COMPUTE_32F && desc.scale == CUDA_R_32F &&
         desc.transpose_a == CUBLAS_OP_T && desc.transpose_b == CUBLAS_OP_N &&
         a.type == CUDA_R_16BF && b.type == CUDA_R_16BF && c.type == CUDA_R_32F &&
         d.type == CUDA_R_32F && a.rows == b.rows && a.cols == d.rows && b.cols == d.cols &&
         c.rows == d.rows && c.cols == d.cols && c.ld == d.ld;
}

size_t Version() { return CUBLAS_VERSION; }
const char* StatusName(cublasStatus_t status) {
  return status == CUBLAS_STATUS_INVALID_VALUE   ? "CUBLAS_STATUS_INVALID_VALUE"
         : status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED"
                                                 : "an error of the emulated cuBLASLt";
}

cublasStatus_t Create(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext{emulated::CurrentDevice()};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t Destroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t DescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute,
                          cudaDataType_t scale) {
  *desc = reinterpret_cast<cublasLtMatmulDesc_t>(new Desc{compute, scale});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t DescDestroy(cublasLtMatmulDesc_t desc) {
  delete Of(desc);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t DescSet(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                       const void* from, size_t size) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return Store(Of(desc)->transpose_a, from, size);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return Store(Of(desc)->transpose_b, from, size);
    case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET:
      return Store(Of(desc)->sm_count, from, size);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t LayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                            uint64_t cols, int64_t ld) {
  *layout = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, cols, ld});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t LayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete Of(layout);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t LayoutSet(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute,
                         const void* from, size_t size) {
  if (attribute != CUBLASLT_MATRIX_LAYOUT_LD) return CUBLAS_STATUS_NOT_SUPPORTED;
  return Store(Of(layout)->ld, from, size);
}

cublasStatus_t PreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = reinterpret_cast<cublasLtMatmulPreference_t>(new Preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t PreferenceDestroy(cublasLtMatmulPreference_t preference) {
  delete Of(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t PreferenceSet(cublasLtMatmulPreference_t preference,
                             cublasLtMatmulPreferenceAttributes_t attribute, const void* from,
                             size_t size) {
  Preference& own = *Of(preference);
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return Store(own.workspace, from, size);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return Store(own.reductions, from, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return Store(own.align_a, from, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return Store(own.align_b, from, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return Store(own.align_c, from, size);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return Store(own.align_d, from, size);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

// One that failed, one that splits the columns, and one to be taken.
cublasStatus_t Heuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                         cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                         cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                         cublasLtMatmulPreference_t preference, int requested,
                         cublasLtMatmulHeuristicResult_t* results, int* count) {
  const Preference& wanted = *Of(preference);
  if (handle == nullptr || requested < 3) return CUBLAS_STATUS_INVALID_VALUE;
  const bool sound = IsKnownForm(*Of(desc), *Of(a), *Of(b), *Of(c), *Of(d)) &&
                     Of(a)->IsSound(wanted.align_a) && Of(b)->IsSound(wanted.align_b) &&
                     Of(d)->IsSound(wanted.align_d) && wanted.align_a == wanted.align_b &&
                     wanted.align_c == wanted.align_d && wanted.workspace >= kWorkspaceBytes;
  if (!sound || wanted.reductions != CUBLASLT_REDUCTION_SCHEME_NONE) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  for (int i = 0; i < 3; ++i) {
    const Algorithm algorithm{kAlgorithm,       Of(d)->rows,    Of(d)->cols,    Of(a)->rows,
                              i == 2 ? 1u : 4u, wanted.align_a, wanted.align_d, 0};
    results[i] = {};
    std::memcpy(&results[i].algo, &algorithm, sizeof(algorithm));
    results[i].workspaceSize = kWorkspaceBytes;
    results[i].state = i == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
  }
  *count = 3;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t AlgoGet(const cublasLtMatmulAlgo_t* algo,
                       cublasLtMatmulAlgoConfigAttributes_t attribute, void* to, size_t size,
                       size_t* written) {
  Algorithm own;
  std::memcpy(&own, algo, sizeof(own));
  const auto splits = static_cast<int32_t>(own.splits);
  if (attribute != CUBLASLT_ALGO_CONFIG_SPLITK_NUM || size != sizeof(splits)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  std::memcpy(to, &splits, size);
  *written = size;
  return CUBLAS_STATUS_SUCCESS;
}

bool IsOn(int device, const void* data, uint64_t bytes, uint64_t align) {
  Place place;
  int owner = -1;
  return reinterpret_cast<uintptr_t>(data) % align == 0 &&
         Machine::Get().Locate(data, bytes, place, &owner) && place == Place::kDevice &&
         owner == device;
}

cublasStatus_t Matmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha,
                      const void* a, cublasLtMatrixLayout_t of_a, const void* b,
                      cublasLtMatrixLayout_t of_b, const void* beta, const void* c,
                      cublasLtMatrixLayout_t of_c, void* d, cublasLtMatrixLayout_t of_d,
                      const cublasLtMatmulAlgo_t* algo, void* workspace, size_t workspace_bytes,
                      cudaStream_t stream) {
  const Layout &la = *Of(of_a), &lb = *Of(of_b), &ld = *Of(of_d);
  if (algo == nullptr || c != d || !IsKnownForm(*Of(desc), la, lb, *Of(of_c), ld)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  Algorithm own;
  std::memcpy(&own, algo, sizeof(own));
  float scale = 0.0f, add = 0.0f;
  std::memcpy(&scale, alpha, sizeof(scale));
  std::memcpy(&add, beta, sizeof(add));
  const int device = handle->device;
  const bool right =
      own.kind == kAlgorithm && own.m == ld.rows && own.n == ld.cols && own.k == la.rows &&
      own.splits == 1 && device == emulated::CurrentDevice() && scale == 1.0f &&
      (add == 0.0f || add == 1.0f) && la.IsSound(16) && lb.IsSound(16) && ld.IsSound(16) &&
      IsOn(device, a, la.bytes(), own.align_in) && IsOn(device, b, lb.bytes(), own.align_in) &&
      IsOn(device, d, ld.bytes(), own.align_out) && workspace_bytes >= kWorkspaceBytes &&
      IsOn(device, workspace, workspace_bytes, 16);
  if (!right) return CUBLAS_STATUS_INVALID_VALUE;
  const Bf16Product product{.w = static_cast<const uint16_t*>(a),
                            .w_stride = static_cast<uint64_t>(la.ld),
                            .x = static_cast<const uint16_t*>(b),
                            .x_stride = static_cast<uint64_t>(lb.ld),
                            .y = static_cast<float*>(d),
                            .y_stride = static_cast<uint64_t>(ld.ld),
                            .rows = ld.cols,
                            .outputs = ld.rows,
                            .cols = la.rows,
                            .adds = add == 1.0f};
  InStream(stream, "cuBLASLt product", [product, workspace] {
    std::fill_n(static_cast<uint64_t*>(workspace), kWorkspaceBytes / 8, kScribble);
    MultiplyBf16(product);
  });
  return CUBLAS_STATUS_SUCCESS;
}

CublasLt Emulated() {
  const char* wanted = std::getenv("TANDEM_EMULATED_CUBLASLT");
  if (wanted != nullptr && std::string(wanted) == "absent") {
    return LoadCublasLt(CublasLtName() + ".absent");
  }
  return CublasLt{.version = Version,
                  .status_name = StatusName,
                  .create = Create,
                  .destroy = Destroy,
                  .desc_create = DescCreate,
                  .desc_destroy = DescDestroy,
                  .desc_set = DescSet,
                  .layout_create = LayoutCreate,
                  .layout_destroy = LayoutDestroy,
                  .layout_set = LayoutSet,
                  .preference_create = PreferenceCreate,
                  .preference_destroy = PreferenceDestroy,
                  .preference_set = PreferenceSet,
                  .heuristic = Heuristic,
                  .algo_get = AlgoGet,
                  .matmul = Matmul};
}

}  // namespace

const CublasLt& TheCublasLt() {
  static const CublasLt loaded = Emulated();
  return loaded;
}

}  // namespace tandem::cuda
