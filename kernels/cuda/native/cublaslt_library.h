// cuBLASLt's functions, as they are found when the program runs: it is no dependency of the
// program's, and its tables would cost every process that links it some hundred MB.
#pragma once

#include <cublasLt.h>

#include <string>

namespace tandem::cuda {

struct CublasLt {
  decltype(&cublasLtGetVersion) version = nullptr;
  decltype(&cublasLtGetStatusName) status_name = nullptr;
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatrixLayoutSetAttribute) layout_set = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulAlgoConfigGetAttribute) algo_get = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
};

// The name under which the loader finds the version that this was compiled for.
std::string CublasLtName();
// Loads a library of this name. Throws Error(kUnsupported) where there is none, where it lacks a
// function, or is of another major version than its header was. It stays loaded: its own threads
// and tables do not survive unloading.
CublasLt LoadCublasLt(const std::string& name);
// The one of this process, loaded when first asked for.
const CublasLt& TheCublasLt();

}  // namespace tandem::cuda
