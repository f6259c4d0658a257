// The functions of the CUDA runtime that capture streams, over the emulated machine.
#include <cuda_runtime_api.h>

#include "tests/support/emulated_gpus/capture.h"

using tandem::emulated::BeginCapture;
using tandem::emulated::Capture;
using tandem::emulated::EndCapture;
using tandem::emulated::Event;
using tandem::emulated::Graph;
using tandem::emulated::Machine;
using tandem::emulated::Stream;
using tandem::emulated::TheCapture;

namespace {

Stream* StreamOf(cudaStream_t handle) {
  auto* stream = reinterpret_cast<Stream*>(handle);
  return Machine::Get().Knows(stream) ? stream : nullptr;
}

}  // namespace

extern "C" {

cudaError_t cudaStreamGetDevice(cudaStream_t handle, int* device) {
  const Stream* stream = StreamOf(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  *device = stream->device();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode) {
  Stream* stream = StreamOf(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (TheCapture() != nullptr) return cudaErrorIllegalState;
  BeginCapture(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  *graph = nullptr;
  const Capture* under_way = TheCapture();
  if (under_way == nullptr) return cudaErrorIllegalState;
  if (under_way->origin() != StreamOf(handle)) return cudaErrorStreamCaptureUnmatched;
  const std::unique_ptr<Capture> capture = EndCapture();
  if (capture->spoilt()) return cudaErrorStreamCaptureInvalidated;
  if (!capture->Joined()) return cudaErrorStreamCaptureUnjoined;
  *graph = reinterpret_cast<cudaGraph_t>(capture->Take().release());
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  const Stream* stream = StreamOf(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  const Capture* capture = TheCapture();
  *status = cudaStreamCaptureStatusNone;
  if (capture != nullptr && capture->Holds(stream)) {
    *status =
        capture->spoilt() ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
  }
  return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t*, const cudaGraphNode_t**,
                                     const cudaGraphEdgeData**, size_t*) {
  const cudaError_t result = cudaStreamIsCapturing(handle, status);
  if (result == cudaSuccess && *status != cudaStreamCaptureStatusNone && id != nullptr) {
    *id = TheCapture()->id();
  }
  return result;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle, unsigned flags) {
  Stream* stream = StreamOf(handle);
  const Event& state = *reinterpret_cast<Event*>(event);
  if (stream == nullptr || stream->device() != state->device) return cudaErrorInvalidResourceHandle;
  Capture* capture = TheCapture();
  if (flags != cudaEventRecordExternal) return cudaEventRecord(event, handle);
  if (capture == nullptr || !capture->Holds(stream)) return cudaErrorIllegalState;
  capture->MarkOutside(stream, state);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t handle) {
  Stream* stream = StreamOf(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (TheCapture() != nullptr) return cudaErrorStreamCaptureUnsupported;
  reinterpret_cast<Graph*>(exec)->Launch(*stream);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete reinterpret_cast<Graph*>(exec);
  return cudaSuccess;
}

}  // extern "C"
