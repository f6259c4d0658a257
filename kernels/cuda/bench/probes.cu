#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <gpu_platform.h>

#include <algorithm>
#include <string>
#include <vector>

#include "engine/base/check.h"
#include "kernels/cuda/bench/probes.h"

namespace tandem::cuda {
namespace {

// cuBLAS, loaded when the peak is asked for, so that the program starts without it.
struct Cublas {
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  // C++ has another of this name.
  cublasStatus_t (*gemm)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                         const void*, const void*, cudaDataType, int, const void*, cudaDataType, int,
                         const void*, void*, cudaDataType, int, cublasComputeType_t,
                         cublasGemmAlgo_t) = nullptr;

  Cublas() {
    const std::string name = "libcublas.so." + std::to_string(CUBLAS_VER_MAJOR);
    void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    Check(library != nullptr, "bench: cuBLAS is not where the loader looks; set LD_LIBRARY_PATH");
    Take(library, "cublasCreate_v2", create);
    Take(library, "cublasDestroy_v2", destroy);
    Take(library, "cublasSetStream_v2", set_stream);
    Take(library, "cublasGemmEx", gemm);
  }
  template <typename F>
  static void Take(void* library, const char* name, F& function) {
    function = reinterpret_cast<F>(dlsym(library, name));
    Check(function != nullptr, "bench: a function that cuBLAS lacks");
  }
};

}  // namespace

double StreamSeconds(void* stream, int rounds, const std::function<void()>& body) {
  auto* own = static_cast<cudaStream_t>(stream);
  cudaEvent_t begin, end;
  CheckLaunch(cudaEventCreate(&begin), "bench event");
  CheckLaunch(cudaEventCreate(&end), "bench event");
  std::vector<float> times;
  for (int i = 0; i < rounds; ++i) {
    CheckLaunch(cudaEventRecord(begin, own), "bench event");
    body();
    CheckLaunch(cudaEventRecord(end, own), "bench event");
    CheckLaunch(cudaEventSynchronize(end), "bench");
    float milliseconds = 0.0f;
    CheckLaunch(cudaEventElapsedTime(&milliseconds, begin, end), "bench event");
    times.push_back(milliseconds);
  }
  CheckLaunch(cudaEventDestroy(begin), "bench event");
  CheckLaunch(cudaEventDestroy(end), "bench event");
  std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
  return times[rounds / 2] * 1e-3;
}

double GemmOpsPerSecond(const void* a, const void* b, void* c, int n, void* stream) {
  static const Cublas cublas;
  cublasHandle_t handle = nullptr;
  Check(cublas.create(&handle) == CUBLAS_STATUS_SUCCESS, "bench: cuBLAS");
  cublas.set_stream(handle, static_cast<cudaStream_t>(stream));
  const float one = 1.0f, zero = 0.0f;
  const double seconds = StreamSeconds(stream, 15, [&] {
    Check(cublas.gemm(handle, CUBLAS_OP_T, CUBLAS_OP_N, n, n, n, &one, a, CUDA_R_16BF, n, b,
                      CUDA_R_16BF, n, &zero, c, CUDA_R_32F, n, CUBLAS_COMPUTE_32F,
                      CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS,
          "bench: cuBLAS product");
  });
  cublas.destroy(handle);
  return 2.0 * n * n * static_cast<double>(n) / seconds;
}

}  // namespace tandem::cuda
