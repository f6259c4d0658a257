// The CUDA back end of kernels/ops.h. no_cuda_ops.cc stands in for it in builds without CUDA.
//
//   std::unique_ptr<Ops> ops = MakeCudaOps({.device = 0, .stream = stream, .memory = &device});
//
// Calls start work on the stream and return; Finish waits. Host spans have been copied when a call
// returns. Weights of every type of engine/model/dtype.h are taken; heads are of at most 256
// dimensions (Error(kUnsupported) else).
//
// State: compiled for sm_80 to sm_120; held to the conformance and invariance suites on an emulated
// GPU (tests/support/cuda_emulation); not yet run on a real one.
//
// Thread rule: one host thread at a time, with the GPU as its current device.
#pragma once

#include <memory>

#include "kernels/cuda/library_room.h"
#include "kernels/ops.h"

namespace tandem {

struct CudaOpsOptions {
  int device = 0;          // CUDA's number of it
  void* stream = nullptr;  // a cudaStream_t of that device; outlives the ops
  int sm_count = 0;        // multiprocessors that the stream's kernels have; 0: all of the GPU's
  ActivationType activations = ActivationType::kInt8;
  AttentionPrecision attention = AttentionPrecision::kSplit;
  // Kernels begin while the one before them ends, where the GPU can (sm_90 and later; launch.h).
  bool overlap_kernels = true;
  // kCublasLt: calls of library.least_rows() rows or more round both sides to BF16 and are
  // multiplied by cuBLASLt, which must be there; int8 activations alone.
  PrefillProducts prefill_products = PrefillProducts::kOwn;
  LibraryRoom library;
  Device* memory = nullptr;  // the same GPU; gives what ops need besides (some MiB); outlives them
};

// Throws Error(kUnsupported) where tandem was built without CUDA, the GPU is older than sm_80, or a
// library that is asked for is not there, Error(kInvalidArgument) for a library beside f32
// activations, and Error(kDevice) where the GPU cannot be asked.
std::unique_ptr<Ops> MakeCudaOps(const CudaOpsOptions& options);

}  // namespace tandem
