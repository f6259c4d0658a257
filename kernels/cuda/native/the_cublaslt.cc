#include "kernels/cuda/native/cublaslt_library.h"

namespace tandem::cuda {

const CublasLt& TheCublasLt() {
  static const CublasLt loaded = LoadCublasLt(CublasLtName());
  return loaded;
}

}  // namespace tandem::cuda
