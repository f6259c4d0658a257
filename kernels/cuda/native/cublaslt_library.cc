#include "kernels/cuda/native/cublaslt_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <type_traits>

#include "engine/base/error.h"

namespace tandem::cuda {

std::string CublasLtName() { return fmt::format("libcublasLt.so.{}", CUBLAS_VER_MAJOR); }

CublasLt LoadCublasLt(const std::string& name) {
  void* library = dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    Fail(
        ErrorCode::kUnsupported,
        fmt::format("kernels/cuda: prefill by cuBLASLt: {} cannot be loaded: {}; put its folder in "
                    "LD_LIBRARY_PATH, or use --prefill-products own",
                    name, why != nullptr ? why : "no reason given"));
  }
  CublasLt found;
  const auto load = [&](auto& function, const char* symbol) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, symbol));
    if (function != nullptr) return;
    Fail(ErrorCode::kUnsupported,
         fmt::format("kernels/cuda: prefill by cuBLASLt: {} has no {} (want cuBLASLt {})", name,
                     symbol, CUBLAS_VER_MAJOR));
  };
  load(found.version, "cublasLtGetVersion");
  load(found.status_name, "cublasLtGetStatusName");
  load(found.create, "cublasLtCreate");
  load(found.destroy, "cublasLtDestroy");
  load(found.desc_create, "cublasLtMatmulDescCreate");
  load(found.desc_destroy, "cublasLtMatmulDescDestroy");
  load(found.desc_set, "cublasLtMatmulDescSetAttribute");
  load(found.layout_create, "cublasLtMatrixLayoutCreate");
  load(found.layout_destroy, "cublasLtMatrixLayoutDestroy");
  load(found.layout_set, "cublasLtMatrixLayoutSetAttribute");
  load(found.preference_create, "cublasLtMatmulPreferenceCreate");
  load(found.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  load(found.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  load(found.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  load(found.algo_get, "cublasLtMatmulAlgoConfigGetAttribute");
  load(found.matmul, "cublasLtMatmul");
  const size_t version = found.version();
  if (version / 10000 != CUBLAS_VER_MAJOR) {
    Fail(ErrorCode::kUnsupported,
         fmt::format("kernels/cuda: prefill by cuBLASLt: {} is version {}.{} (want {}.x, whose "
                     "header this was compiled with); or use --prefill-products own",
                     name, version / 10000, version / 100 % 100, CUBLAS_VER_MAJOR));
  }
  return found;
}

}  // namespace tandem::cuda
