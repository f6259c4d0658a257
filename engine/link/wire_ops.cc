#include "engine/link/wire_ops.h"

#include <cstring>

#include "engine/link/wire.h"

namespace tandem {
namespace {

class Host final : public WireOps {
 public:
  void Encode(DeviceQueue*, WireType wire, const float* x, uint64_t n, std::byte* out) override {
    EncodeWire(wire, x, n, out);
  }
  void Decode(DeviceQueue*, WireType wire, const std::byte* in, uint64_t n, float* y) override {
    DecodeWire(wire, in, n, y);
  }
  void DecodeAdd(DeviceQueue*, WireType wire, const std::byte* in, uint64_t n, float* y) override {
    DecodeAddWire(wire, in, n, y);
  }
  void Round(DeviceQueue*, WireType wire, const float* x, uint64_t n, float* y) override {
    RoundToWire(wire, x, n, y);
  }
  void CopyRows(DeviceQueue*, const float* from, uint64_t from_stride, float* to,
                uint64_t to_stride, uint64_t width, uint64_t rows) override {
    for (uint64_t row = 0; row < rows; ++row) {
      std::memcpy(to + row * to_stride, from + row * from_stride, width * sizeof(float));
    }
  }
};

class InQueue final : public WireOps {
 public:
  void Encode(DeviceQueue* queue, WireType wire, const float* x, uint64_t n,
              std::byte* out) override {
    queue->Call([=] { EncodeWire(wire, x, n, out); });
  }
  void Decode(DeviceQueue* queue, WireType wire, const std::byte* in, uint64_t n,
              float* y) override {
    queue->Call([=] { DecodeWire(wire, in, n, y); });
  }
  void DecodeAdd(DeviceQueue* queue, WireType wire, const std::byte* in, uint64_t n,
                 float* y) override {
    queue->Call([=] { DecodeAddWire(wire, in, n, y); });
  }
  void Round(DeviceQueue* queue, WireType wire, const float* x, uint64_t n, float* y) override {
    queue->Call([=] { RoundToWire(wire, x, n, y); });
  }
  void CopyRows(DeviceQueue* queue, const float* from, uint64_t from_stride, float* to,
                uint64_t to_stride, uint64_t width, uint64_t rows) override {
    queue->Call(
        [=] { HostWireOps().CopyRows(nullptr, from, from_stride, to, to_stride, width, rows); });
  }
};

}  // namespace

WireOps& QueuedHostWireOps() {
  static InQueue ops;
  return ops;
}

WireOps& HostWireOps() {
  static Host host;
  return host;
}

}  // namespace tandem
