// The one Engine: owns devices, kernels, executor, scheduler and clock. Internal to engine/run.
//
// Submit, Cancel and counters take `mutex_`; everything else is the engine thread's. Listeners and
// observers are called without the mutex, so they may submit and cancel.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/run/backend.h"
#include "engine/run/engine.h"
#include "engine/run/executor.h"
#include "engine/run/rig_time.h"
#include "engine/run/sampler.h"
#include "engine/run/scheduler.h"

namespace tandem {

class EngineImpl final : public Engine, private LogitsSink {
 public:
  explicit EngineImpl(EngineOptions options);
  ~EngineImpl() override;

  const EngineOptions& options() const override { return options_; }
  const EngineInfo& info() const override { return info_; }
  const Model& model() const override { return *options_.model; }
  const Clock& clock() const override;
  EngineCounters counters() const override;
  std::vector<MemoryCheck> CheckMemory() override;
  RequestId Submit(Request request, std::shared_ptr<RequestListener> listener) override;
  void Cancel(RequestId id) override;
  void CancelAll() override;
  bool HasWork() const override;
  Nanos NextStepTime() const override;
  void AdvanceTo(Nanos when) override;
  bool Step() override;
  void AddObserver(StepObserver* observer) override;
  void RemoveObserver(StepObserver* observer) override;

  // For tests: the devices, d0 first, and the host.
  Device& device(size_t index) { return *backend_->devices()[index]; }
  Device& host() { return backend_->host(); }

 private:
  // A step that has run here but has not ended on the virtual clock.
  struct Lane {
    Nanos ready;  // when it can start its next step
    bool in_flight = false;
    std::vector<Sequence*> members;
    StepReport report;
    std::vector<HopRow> hops;
    Bytes link_bytes;
    std::string error;  // why the step failed; empty when it did not
  };
  struct Event {
    Nanos when;
    uint32_t lane = 0;
    bool ends = false;  // a step ends; otherwise one starts
  };

  // Construction (engine.cc).
  void MakePlan();
  void MakeBackend();
  void MakeInfo();
  void LogMemory(const char* when) noexcept;
  bool IsVirtual() const { return options_.clock == ClockKind::kVirtual; }

  // A step (engine_step.cc).
  void DrainInbox();
  void ApplyCancels();
  std::optional<Event> NextEvent() const;
  void StartStep(uint32_t lane);
  void EndStep(uint32_t lane);
  void RunBatch(Lane& lane);
  void Account(Lane& lane);
  void Deliver(Sequence& sequence, Nanos when, const StepReport& report);
  void AppendToken(Sequence& sequence, Nanos when);
  std::optional<FinishReason> EndOf(const Sequence& sequence) const;
  void Finish(std::unique_ptr<Sequence> sequence, FinishReason reason, Nanos when);
  void FailMembers(Lane& lane, Nanos when);
  void UpdateGauges();
  void OnLogits(std::span<const SampledRow> rows, const float* logits,
                std::span<int32_t> ids) override;
  void OnTopK(std::span<const SampledRow> rows, const TopEntry* entries, uint32_t k,
              std::span<int32_t> ids) override;
  // The sequence whose next id a row of logits chooses; null where none does.
  Sequence* ChosenBy(const SampledRow& row);

  EngineOptions options_;
  EngineInfo info_;
  WallClock wall_;
  VirtualClock virtual_;
  std::shared_ptr<ThreadPool> pool_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<RigTimer> timer_;
  std::unique_ptr<Sampler> sampler_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<Lane> lanes_;
  std::vector<StepObserver*> observers_;
  uint32_t slot_context_ = 0;
  uint64_t steps_ = 0;
  std::string lost_;  // why a device is lost for good; empty while none is

  // The step under way.
  StepBatch batch_;
  std::vector<Sequence*>* members_ = nullptr;

  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<Sequence>> inbox_;
  std::vector<RequestId> cancels_;
  bool cancel_all_ = false;
  RequestId next_id_ = 1;
  uint32_t queued_ = 0;  // waiting, in the inbox or in the scheduler
  EngineCounters counters_;
};

}  // namespace tandem
