#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <gpu_platform.h>

#include <algorithm>
#include <vector>

#include "engine/base/check.h"
#include "kernels/cuda/bench/probes.h"

namespace tandem::cuda {
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
  cublasHandle_t handle = nullptr;
  Check(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS, "bench: cuBLAS");
  cublasSetStream(handle, static_cast<cudaStream_t>(stream));
  const float one = 1.0f, zero = 0.0f;
  const double seconds = StreamSeconds(stream, 15, [&] {
    Check(cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, n, n, n, &one, a, CUDA_R_16BF, n, b,
                       CUDA_R_16BF, n, &zero, c, CUDA_R_32F, n, CUBLAS_COMPUTE_32F,
                       CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS,
          "bench: cuBLAS product");
  });
  cublasDestroy(handle);
  return 2.0 * n * n * static_cast<double>(n) / seconds;
}

}  // namespace tandem::cuda
