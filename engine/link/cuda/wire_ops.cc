#include "engine/device/cuda/handles.h"
#include "engine/link/cuda/wire.h"
#include "engine/link/cuda/wire_kernels.h"

namespace tandem {
namespace {

cudaStream_t StreamOf(DeviceQueue* queue) { return static_cast<cudaStream_t>(queue->native()); }

class CudaWireOps final : public WireOps {
 public:
  explicit CudaWireOps(int ordinal) : ordinal_(ordinal) {}

  void Encode(DeviceQueue* queue, WireType wire, const float* x, uint64_t n,
              std::byte* out) override {
    if (n == 0) return;
    OnDevice current(ordinal_);
    if (wire == WireType::kF32) return CopyFloats(queue, x, n, reinterpret_cast<float*>(out));
    cuda::LaunchEncode(wire, x, n, out, queue->native());
  }

  void Decode(DeviceQueue* queue, WireType wire, const std::byte* in, uint64_t n,
              float* y) override {
    if (n == 0) return;
    OnDevice current(ordinal_);
    cuda::LaunchDecode(wire, in, n, y, queue->native());
  }

  void DecodeAdd(DeviceQueue* queue, WireType wire, const std::byte* in, uint64_t n,
                 float* y) override {
    if (n == 0) return;
    OnDevice current(ordinal_);
    cuda::LaunchDecodeAdd(wire, in, n, y, queue->native());
  }

  void Round(DeviceQueue* queue, WireType wire, const float* x, uint64_t n, float* y) override {
    if (n == 0 || (wire == WireType::kF32 && x == y)) return;
    OnDevice current(ordinal_);
    if (wire == WireType::kF32) return CopyFloats(queue, x, n, y);
    cuda::LaunchRound(wire, x, n, y, queue->native());
  }

  void CopyRows(DeviceQueue* queue, const float* from, uint64_t from_stride, float* to,
                uint64_t to_stride, uint64_t width, uint64_t rows) override {
    queue->Copy(QueueCopy{.to = reinterpret_cast<std::byte*>(to),
                          .to_stride = to_stride * sizeof(float),
                          .from = reinterpret_cast<const std::byte*>(from),
                          .from_stride = from_stride * sizeof(float),
                          .row_bytes = width * sizeof(float),
                          .rows = rows});
  }

 private:
  static void CopyFloats(DeviceQueue* queue, const float* from, uint64_t n, float* to) {
    CheckCuda(
        cudaMemcpyAsync(to, from, n * sizeof(float), cudaMemcpyDeviceToDevice, StreamOf(queue)),
        "link: copy activations");
  }

  int ordinal_;
};

}  // namespace

std::unique_ptr<WireOps> MakeCudaWireOps(int ordinal) {
  return std::make_unique<CudaWireOps>(ordinal);
}

}  // namespace tandem
