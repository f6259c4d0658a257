#include "engine/device/cuda/cuda_recorder.h"

#include <type_traits>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/device/cuda/handles.h"

namespace tandem {
namespace {

struct GraphDeleter {
  void operator()(cudaGraph_t graph) const noexcept { cudaGraphDestroy(graph); }
};
using CudaGraph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, GraphDeleter>;
struct GraphExecDeleter {
  void operator()(cudaGraphExec_t exec) const noexcept { cudaGraphExecDestroy(exec); }
};
using CudaGraphExec = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, GraphExecDeleter>;

// A device's stream, with an event that marks how far it has come.
struct Branch {
  int ordinal = 0;
  cudaStream_t stream = nullptr;
  CudaEventHandle reached;
};

// All streams of the devices; the first is where graphs begin and are launched.
class Branches {
 public:
  explicit Branches(std::span<const std::unique_ptr<Device>> devices) {
    for (const auto& device : devices) {
      for (size_t role = 0; role < kQueueRoles; ++role) {
        auto stream =
            static_cast<cudaStream_t>(device->queue(static_cast<QueueRole>(role))->native());
        const int ordinal = OrdinalOf(stream);
        branches_.push_back(Branch{ordinal, stream, MakeOrderEvent(ordinal)});
      }
    }
  }
  const Branch& first() const { return branches_[0]; }

  // What the others are asked for from here on comes after what the first was asked for; and back.
  void Fork() const {
    CheckCudaOn(first().ordinal, cudaEventRecord(first().reached.get(), first().stream),
                "fork off a stream");
    for (size_t i = 1; i < branches_.size(); ++i) {
      CheckCudaOn(branches_[i].ordinal,
                  cudaStreamWaitEvent(branches_[i].stream, first().reached.get(), 0),
                  "fork off a stream");
    }
  }
  void Join() const {
    for (size_t i = 1; i < branches_.size(); ++i) {
      const Branch& branch = branches_[i];
      CheckCudaOn(branch.ordinal, cudaEventRecord(branch.reached.get(), branch.stream),
                  "join a stream");
      CheckCudaOn(first().ordinal, cudaStreamWaitEvent(first().stream, branch.reached.get(), 0),
                  "join a stream");
    }
  }

 private:
  static int OrdinalOf(cudaStream_t stream) {
    int ordinal = 0;
    CheckCuda(cudaStreamGetDevice(stream, &ordinal), "ask for a stream's device");
    return ordinal;
  }
  std::vector<Branch> branches_;
};

class GraphRecording final : public Recording {
 public:
  GraphRecording(CudaGraphExec exec, const Branches& branches)
      : exec_(std::move(exec)), branches_(branches) {}

  void Replay() override {
    OnDevice current(branches_.first().ordinal);
    branches_.Join();
    CheckCuda(cudaGraphLaunch(exec_.get(), branches_.first().stream), "launch a step's graph");
    branches_.Fork();
  }

 private:
  CudaGraphExec exec_;
  const Branches& branches_;
};

class CudaRecorder final : public QueueRecorder {
 public:
  explicit CudaRecorder(std::span<const std::unique_ptr<Device>> devices)
      : captured_(devices), launched_(devices) {}

  void Begin() override {
    OnDevice current(captured_.first().ordinal);
    // Calls of other threads are their own matter; this one's are refused where they cannot be
    // kept.
    CheckCuda(cudaStreamBeginCapture(captured_.first().stream, cudaStreamCaptureModeThreadLocal),
              "begin a graph");
    recording_ = true;
    captured_.Fork();
  }

  std::unique_ptr<Recording> End() override {
    OnDevice current(captured_.first().ordinal);
    captured_.Join();
    cudaGraph_t made = nullptr;
    recording_ = false;
    CheckCuda(cudaStreamEndCapture(captured_.first().stream, &made), "end a graph");
    const CudaGraph graph(made);
    cudaGraphExec_t exec = nullptr;
    CheckCuda(cudaGraphInstantiate(&exec, graph.get(), 0), "make a graph ready");
    return std::make_unique<GraphRecording>(CudaGraphExec(exec), launched_);
  }

  void Abandon() noexcept override {
    if (!std::exchange(recording_, false)) return;
    cudaGraph_t made = nullptr;
    cudaStreamEndCapture(captured_.first().stream, &made);
    if (made != nullptr) cudaGraphDestroy(made);
    cudaGetLastError();  // told by what failed within
  }

 private:
  // Events of their own: one that was captured last may not be waited for outside.
  Branches captured_, launched_;
  bool recording_ = false;
};

}  // namespace

std::unique_ptr<QueueRecorder> MakeCudaRecorder(std::span<const std::unique_ptr<Device>> devices) {
  Check(!devices.empty(), "cuda recorder: no devices");
  return std::make_unique<CudaRecorder>(devices);
}

}  // namespace tandem
