// What the back end's own kernels reach on one device: reading weights for one token, and
// multiplying for a prompt. Beside the device's roofs (DeviceProbe) these are the efficiencies that
// a rig is priced with. The weights' type is the one that the device is described by: BF16 on GPUs,
// Q8_0 on CPU devices, which run quantised models.
//
// One thread; holds its weights in the device's memory.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "engine/run/backend.h"

namespace tandem {

// The roof beside which prompts are measured: the products that the device is described by.
DeviceMeasure ProductRoof(Device& device);

struct ProductSizes {
  uint64_t rows = 4096, cols = 4096;  // of the matrix
  uint64_t bytes = 0;                 // of its copies together: beyond any cache
  uint64_t prompt = 0;                // rows of activations
};
ProductSizes DefaultProductSizes(Device& device);

class ProductProbe {
 public:
  // `device` by index. Throws Error(kDevice) where it lacks the room.
  ProductProbe(Backend& backend, size_t device, const ProductSizes& sizes);

  // Asks for products of one row over weights that no cache holds, or of many rows over some of
  // them; on devices without queues they are done then.
  void AskDecode();
  void AskPrefill();
  // Waits. Bytes of weights a second (decode), or operations (prefill).
  double Take();

 private:
  void Ask(uint64_t n, size_t copies);
  void Begin();
  void End();

  Ops& ops_;
  DeviceQueue* queue_;
  DType type_;
  ProductSizes sizes_;
  std::vector<Buffer> weights_;  // copies of one matrix
  uint64_t packed_bytes_ = 0;
  Buffer x_, y_, prepared_;
  std::unique_ptr<DeviceEvent> begin_, end_;
  std::chrono::steady_clock::time_point start_;
  double seconds_ = 0;  // without queues
  double amount_ = 0;
};

}  // namespace tandem
