#include "kernels/cuda/probe.h"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>

#include "engine/base/error.h"
#include "engine/device/cuda/handles.h"
#include "kernels/cuda/probe_kernels.h"
#include "kernels/cuda/runtime.h"

namespace tandem::cuda {
namespace {

constexpr uint64_t kMostBytes = uint64_t{1} << 30;  // beyond any cache
constexpr uint64_t kLeastBytes = uint64_t{64} << 20;
constexpr int kLaunches = 200;
constexpr int kStreamRounds = 4;  // of reads and copies in one measurement

// cuBLAS as it is found. Stays loaded: its own threads and tables do not survive unloading.
using GemmEx = cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m,
                                  int n, int k, const void* alpha, const void* a, cudaDataType,
                                  int lda, const void* b, cudaDataType, int ldb, const void* beta,
                                  void* c, cudaDataType, int ldc, cublasComputeType_t,
                                  cublasGemmAlgo_t);
struct Cublas {
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  GemmEx gemm = nullptr;  // the header has another by this name, for C++
};

const Cublas& LoadCublas() {
  static const Cublas loaded = [] {
    const std::string name = fmt::format("libcublas.so.{}", CUBLAS_VER_MAJOR);
    void* library = dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL);
    if (library == nullptr) {
      const char* why = dlerror();
      Fail(ErrorCode::kUnsupported,
           fmt::format("probe: products are measured with cuBLAS, and {} cannot be loaded: {}; put "
                       "its folder in LD_LIBRARY_PATH",
                       name, why != nullptr ? why : "no reason given"));
    }
    Cublas cublas;
    const auto load = [&](auto& function, const char* symbol) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, symbol));
      if (function != nullptr) return;
      Fail(ErrorCode::kUnsupported, fmt::format("probe: {} has no {}", name, symbol));
    };
    load(cublas.create, "cublasCreate_v2");
    load(cublas.destroy, "cublasDestroy_v2");
    load(cublas.set_stream, "cublasSetStream_v2");
    load(cublas.gemm, "cublasGemmEx");
    return cublas;
  }();
  return loaded;
}

void CheckCublas(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  const std::string text =
      fmt::format("probe: cuBLAS: {}: status {}", what, static_cast<int>(status));
  Fail(status == CUBLAS_STATUS_NOT_SUPPORTED ? ErrorCode::kUnsupported : ErrorCode::kDevice, text);
}

// How one type is multiplied, and bits that make random finite numbers of it (in [0.5, 1), of
// either sign; int8: any). Zeros would be multiplied faster.
struct ProductType {
  cudaDataType_t in, out;
  cublasComputeType_t compute;
  uint64_t in_bytes;
  uint32_t keep, set;
  int rounds;
};

ProductType TypeOf(DeviceMeasure what) {
  switch (what) {
    case DeviceMeasure::kProductBf16:
      return {CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F, 2, 0x807f807f, 0x3f003f00, 4};
    case DeviceMeasure::kProductF16:
      return {CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F, 2, 0x83ff83ff, 0x38003800, 4};
    case DeviceMeasure::kProductInt8:
      return {CUDA_R_8I, CUDA_R_32I, CUBLAS_COMPUTE_32I, 1, 0xffffffff, 0, 4};
    default:
      return {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F, 4, 0x807fffff, 0x3f000000, 1};
  }
}

struct GraphDeleter {
  void operator()(cudaGraph_t graph) const noexcept { cudaGraphDestroy(graph); }
};
struct GraphExecDeleter {
  void operator()(cudaGraphExec_t graph) const noexcept { cudaGraphExecDestroy(graph); }
};
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, GraphDeleter>;
using GraphExec = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, GraphExecDeleter>;

class CudaProbe final : public DeviceProbe {
 public:
  explicit CudaProbe(const CudaProbeOptions& options)
      : device_(options.device),
        stream_(static_cast<cudaStream_t>(options.stream)),
        sms_(ReadGpuFacts(options.device).sm_count),
        begin_(MakeTimedEvent(options.device)),
        end_(MakeTimedEvent(options.device)) {
    // A card that lacks room for the whole is probed with less.
    for (bytes_ = kMostBytes; !memory_; bytes_ /= 2) {
      try {
        memory_ = options.memory->Allocate(MemoryUse::kWorkspace, Bytes{bytes_ + 64}, "probe");
        break;
      } catch (const Error&) {
        if (bytes_ / 2 < kLeastBytes) throw;
      }
    }
  }
  ~CudaProbe() override {
    if (cublas_ != nullptr) LoadCublas().destroy(cublas_);
  }
  CudaProbe(const CudaProbe&) = delete;
  CudaProbe& operator=(const CudaProbe&) = delete;

  void Ask(DeviceMeasure what) override {
    OnDevice current(device_);
    std::byte* const half = memory_.data() + bytes_ / 2;
    switch (what) {
      case DeviceMeasure::kMemoryRead:
        amount_ = static_cast<double>(bytes_) * kStreamRounds;
        return Timed(kStreamRounds, [&] {
          LaunchReadProbe(memory_.data(), bytes_,
                          reinterpret_cast<uint32_t*>(memory_.data() + bytes_), sms_, stream_);
        });
      case DeviceMeasure::kMemoryCopy:
        amount_ = static_cast<double>(bytes_) * kStreamRounds;  // a half read, a half written
        return Timed(kStreamRounds,
                     [&] { LaunchCopyProbe(memory_.data(), half, bytes_ / 2, sms_, stream_); });
      case DeviceMeasure::kProductBf16:
      case DeviceMeasure::kProductF16:
      case DeviceMeasure::kProductInt8:
      case DeviceMeasure::kProductF32:
        return Multiply(TypeOf(what));
      case DeviceMeasure::kLaunchEager:
        amount_ = 0;
        return Timed(kLaunches, [&] { LaunchNothing(stream_); });
      case DeviceMeasure::kLaunchGraph:
        if (!graph_) graph_ = CaptureNothing();
        amount_ = 0;
        return Timed(1, [&] {
          CheckCuda(cudaGraphLaunch(graph_.get(), stream_), "launch the probe's graph");
        });
    }
  }

  double Take() override {
    OnDevice current(device_);
    CheckCuda(cudaEventSynchronize(end_.get()), "wait for the probe");
    float millis = 0;
    CheckCuda(cudaEventElapsedTime(&millis, begin_.get(), end_.get()), "time the probe");
    const double seconds = std::max(double{millis} * 1e-3, 1e-9);
    return amount_ > 0 ? amount_ / seconds : seconds / kLaunches;
  }

 private:
  template <typename Body>
  void Timed(int rounds, const Body& body) {
    CheckCuda(cudaEventRecord(begin_.get(), stream_), "mark the probe's begin");
    for (int i = 0; i < rounds; ++i) body();
    CheckCuda(cudaEventRecord(end_.get(), stream_), "mark the probe's end");
  }

  // c (n, n) = a^T b, a form that every type has.
  void Multiply(const ProductType& type) {
    if (cublas_ == nullptr) {
      CheckCublas(LoadCublas().create(&cublas_), "make a handle");
      CheckCublas(LoadCublas().set_stream(cublas_, stream_), "set the stream");
    }
    // a, b and c together: at most 12 bytes an element.
    int n = 8192;
    while (uint64_t{12} * n * n > bytes_) n /= 2;
    const uint64_t elements = static_cast<uint64_t>(n) * static_cast<uint64_t>(n);
    std::byte* const a = memory_.data();
    std::byte* const b = a + elements * type.in_bytes;
    std::byte* const c = b + elements * type.in_bytes;
    LaunchFillProbe(reinterpret_cast<uint32_t*>(a), 2 * elements * type.in_bytes / 4, type.keep,
                    type.set, sms_, stream_);
    const float one = 1, zero = 0;
    const int32_t one_int = 1, zero_int = 0;
    const bool whole = type.compute == CUBLAS_COMPUTE_32I;
    const void* const alpha = whole ? static_cast<const void*>(&one_int) : &one;
    const void* const beta = whole ? static_cast<const void*>(&zero_int) : &zero;
    amount_ = 2.0 * n * static_cast<double>(elements) * type.rounds;
    Timed(type.rounds, [&] {
      CheckCublas(
          LoadCublas().gemm(cublas_, CUBLAS_OP_T, CUBLAS_OP_N, n, n, n, alpha, a, type.in, n, b,
                            type.in, n, beta, c, type.out, n, type.compute, CUBLAS_GEMM_DEFAULT),
          "product");
    });
  }

  GraphExec CaptureNothing() {
    LaunchNothing(stream_);  // loads the kernel, which a capture may not
    CheckCuda(cudaStreamSynchronize(stream_), "wait for the probe");
    cudaGraph_t captured = nullptr;
    CheckCuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
              "begin the probe's graph");
    for (int i = 0; i < kLaunches; ++i) LaunchNothing(stream_);
    CheckCuda(cudaStreamEndCapture(stream_, &captured), "end the probe's graph");
    const Graph graph(captured);
    cudaGraphExec_t exec = nullptr;
    CheckCuda(cudaGraphInstantiate(&exec, graph.get(), 0), "instantiate the probe's graph");
    return GraphExec(exec);
  }

  const int device_;
  const cudaStream_t stream_;
  const int sms_;
  CudaEventHandle begin_, end_;
  uint64_t bytes_ = 0;
  Buffer memory_;  // bytes_, and a word for the sink
  cublasHandle_t cublas_ = nullptr;
  GraphExec graph_;
  double amount_ = 0;  // bytes or operations of what was asked; zero: launches
};

}  // namespace

std::unique_ptr<DeviceProbe> MakeCudaProbe(const CudaProbeOptions& options) {
  return std::make_unique<CudaProbe>(options);
}

}  // namespace tandem::cuda
