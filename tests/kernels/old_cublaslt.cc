// A cuBLASLt of another major version: every function that is looked for, and nothing behind them.
#include <cstddef>

#define NOTHING(name) \
  extern "C" int name() { return 1; }

extern "C" size_t cublasLtGetVersion() { return 120304; }
NOTHING(cublasLtGetStatusName)
NOTHING(cublasLtCreate)
NOTHING(cublasLtDestroy)
NOTHING(cublasLtMatmulDescCreate)
NOTHING(cublasLtMatmulDescDestroy)
NOTHING(cublasLtMatmulDescSetAttribute)
NOTHING(cublasLtMatrixLayoutCreate)
NOTHING(cublasLtMatrixLayoutDestroy)
NOTHING(cublasLtMatrixLayoutSetAttribute)
NOTHING(cublasLtMatmulPreferenceCreate)
NOTHING(cublasLtMatmulPreferenceDestroy)
NOTHING(cublasLtMatmulPreferenceSetAttribute)
NOTHING(cublasLtMatmulAlgoGetHeuristic)
NOTHING(cublasLtMatmulAlgoConfigGetAttribute)
NOTHING(cublasLtMatmul)
