// Runs a plan's programs: walks the op list in order, computes with Ops, moves with transports,
// times every op alone on the steady clock and books every byte that crosses.
//
// Owns the devices' memory for one engine: weights and slots, KV, one arena a device for the values
// of a step, one scratch a device for kernels and collectives. All of it is allocated when the
// executor is made; a step allocates nothing from a device's ledger. Values of a very uneven step
// that do not fit the arena as they would be laid are laid as those of the largest step.
//
// Nothing here looks into a device's memory. On devices that work on their own time the whole list
// is asked for, in list order and with waits between queues where ops depend on one another
// (step_order.h), and times come from the devices; logits, or the largest of them where these are
// enough to choose ids by, are copied to the host's memory and handed over when the rest of the
// step is under way.
//
// One thread. An Error from Run leaves the executor usable: the step's rows are lost, nothing else.
// (A device that has failed for good fails every step after it.)
//
//   Executor executor(setup);
//   executor.Run(batch, sink);   // then executor.trace(), executor.ledger()
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/link/collectives.h"
#include "engine/link/direct_collectives.h"
#include "engine/link/staging_ring.h"
#include "engine/link/traffic_ledger.h"
#include "engine/link/transport.h"
#include "engine/model/rope.h"
#include "engine/plan/cost.h"
#include "engine/plan/value_layout.h"
#include "engine/plan/verifier.h"
#include "engine/run/backend.h"
#include "engine/run/batch.h"
#include "engine/run/compiled_program.h"
#include "engine/run/engine.h"
#include "engine/run/fetch_ahead.h"
#include "engine/run/kv_cache.h"
#include "engine/run/microbatch.h"
#include "engine/run/scratch.h"
#include "engine/run/step_graph.h"
#include "engine/run/step_order.h"
#include "engine/run/weights.h"

namespace tandem {

// Everything outlives the executor.
struct ExecutorSetup {
  const Model* model = nullptr;
  const Plan* plan = nullptr;
  const VerifyResult* verified = nullptr;  // of the plan
  const Rig* rig = nullptr;
  PlanLimits limits;
  Backend* backend = nullptr;  // the plan's devices
  GpuSwitches gpu;             // of them, graphs and fuse_collectives
  // Where given, what a path's transport is wrapped in: tests inject faults with it.
  std::function<std::unique_ptr<Transport>(std::unique_ptr<Transport>)> wrap_transport;
};

// What one step was and took. Times count from the step's start, on the steady clock.
struct StepTrace {
  const Program* program = nullptr;
  const ProgramInfo* info = nullptr;
  size_t program_index = 0;
  StepShape shape;
  LaunchMode launch = LaunchMode::kEager;
  std::vector<Nanos> op_start;  // by op
  std::vector<Nanos> op_time;   // by op: compute and movement alike
  Nanos length;
  // Where ops ran side by side, on devices that work on their own time; else without devices.
  OverlapTrace overlap;
};

class Executor {
 public:
  explicit Executor(const ExecutorSetup& setup);
  ~Executor();

  // Runs the lane's program over the batch; `sink` is called as SAMPLE ops run.
  // Throws Error(kDevice) when a transport or device fails.
  void Run(const StepBatch& batch, LogitsSink& sink);
  const StepTrace& trace() const { return trace_; }
  const TrafficLedger& ledger() const { return ledger_; }
  TrafficLedger& ledger() { return ledger_; }

  // The shape that a batch would have, without running it.
  const StepShape& ShapeOf(const StepBatch& batch);

  // How a decode step that is like another before it is started.
  LaunchMode decode_launch() const {
    return recorder_ == nullptr ? LaunchMode::kEager : LaunchMode::kGraph;
  }
  // Whether all-reduces of a decode step take along what follows them, in steps of few rows.
  bool fuses_collectives() const;
  uint32_t pages_per_lane() const { return n_pages_; }
  // Rows of a prefill step that may all be sampled (scoring a prompt) within the arena.
  uint32_t max_scored_rows(uint32_t lane) const { return max_scored_rows_[lane]; }
  // The path that each pair of ends in use takes, and what moves the bytes here where that is not
  // the path itself: "d0-d1 local", "host-d0 copy (by local)".
  const std::vector<std::string>& transport_names() const { return transport_names_; }
  // What the transport says that may have any: see Transport::windows.
  std::string windows() const;
  Bytes packed_bytes() const { return weights_->packed_bytes(); }
  Bytes pageable_bytes() const { return weights_->pageable_bytes(); }
  // Bytes of weights that one step of a program reads on a device, by device.
  std::span<const Bytes> StepWeights(size_t program_index) const {
    return step_weights_[program_index];
  }

 private:
  // A value's memory in the step at hand.
  struct ValueMemory {
    float* data = nullptr;
    uint32_t rows = 0;
    uint32_t width = 0;
    uint64_t elems() const { return uint64_t{rows} * width; }
  };

  // Construction (executor_setup.cc).
  void MakeTransports();
  Bytes PageLockedForSteps() const;
  Transport* TransportFor(PathKind path);
  Transport* TransportOf(const Op& op);
  void CompilePrograms();
  // Throws where KV would move between devices that keep keys in different orders.
  void CheckKeyOrders(const Op& op) const;
  void MakeRings();
  void MakeKv();
  void SizeArenas();
  void CutScratch();
  void MakeOrder();
  void MakeGraphs();
  void SizeScoring();
  void SumStepWeights();
  bool FitsArenas(const ValueLayout& layout) const;

  // A step.
  // False when the step's rows are laid as those of the program's last step.
  bool LayOut(size_t program_index, std::span<const MicrobatchShape> shapes);
  void SetValueShapes(size_t program_index, std::span<const MicrobatchShape> shapes);
  void BindValues();
  void Dispatch(uint32_t index, LogitsSink& sink);
  void BeginBooking(uint32_t index);
  size_t ProgramIndex(ProgramKind kind, uint32_t lane) const;

  // A step on devices with queues (executor_queued.cc).
  void RunQueued(size_t program_index, const StepBatch& batch, bool laid_anew, LogitsSink& sink);
  void FinishStep();
  template <typename Wait>
  void Await(const Wait& wait);
  void AskForOps(uint32_t begin, uint32_t end, LogitsSink& sink);
  void AskForAddNorm(uint32_t add, uint32_t norm);
  void AskForReduce(uint32_t reduce);
  void SizeLanding(uint32_t top_k);
  void FetchForNextStep(size_t program_index);
  void SendLogits(uint32_t index, LogitsSink& sink);
  void SendTopK(const CompiledOp& op, uint64_t first, uint64_t count, uint64_t at);
  void TakeLogits(LogitsSink& sink);
  // What transports have met whose kernels gave up during the step; throws it where it shall tell.
  void TakeFailures(bool tell);
  void ReadOverlap();

  // The same, recorded (executor_graph.cc).
  StepGraph* GraphOfStep();
  void RunGraph(StepGraph& graph, LogitsSink& sink);
  void Record(StepGraph& graph, LogitsSink& sink);
  void RecordSegment(StepSegment& segment, LogitsSink& sink);

  // Compute ops (executor_ops.cc).
  void RunBlock(const CompiledOp& op);
  void RunPieceOf(const CompiledOp& op, const RunPiece& piece, const Microbatch& mb, float* y,
                  uint32_t y_width);
  void RunAttention(const CompiledOp& op, const RunPiece& piece, const Microbatch& mb,
                    const float* n, float* y);
  void AttentionRows(const CompiledOp& op, const RunPiece& piece, const float* n,
                     std::span<const SequenceRows> sequences, uint32_t rows, float* y);
  void FinishHeads(const CompiledOp& op, const RunPiece& piece, const KvPiece& kv, uint32_t rows,
                   float* q, float* k, float* v);
  void RunMlp(const CompiledOp& op, const RunPiece& piece, const Microbatch& mb, const float* n,
              float* y);
  void RunHead(const CompiledOp& op, const RunPiece& piece, const float* n, uint32_t rows, float* y,
               uint32_t y_width);
  void RunNorm(const CompiledOp& op);
  void RunAdd(const CompiledOp& op);
  void RunSample(const CompiledOp& op, LogitsSink& sink);

  // ADD and the NORM of its sum as one, and with the ALL_REDUCE before it (executor_fused.cc).
  void PairOps();
  bool MayRunWith(const CompiledOp& add, const CompiledOp& norm) const;
  // The NORM that an ADD runs in this step, or kNoOp.
  uint32_t NormOf(uint32_t op) const {
    const uint32_t norm = programs_[trace_.program_index].ops[op].next_norm;
    return norm != kNoOp && run_with_[norm] == op ? norm : kNoOp;
  }
  void RunAddNorm(uint32_t add, uint32_t norm);
  double NormShare(uint32_t add, uint32_t norm) const;
  DirectRowsShape RowsShapeOf(const CompiledOp& reduce) const;
  bool MayRunWithReduce(uint32_t reduce) const;
  // The ADDs that an ALL_REDUCE runs in this step, by rank, with their NORMs; or none.
  std::span<const uint32_t> AddsOf(uint32_t op) const {
    const std::span<const uint32_t> adds = programs_[trace_.program_index].ops[op].next_adds;
    return !adds.empty() && run_with_[adds[0]] == op ? adds : std::span<const uint32_t>();
  }
  void ReduceWithAdds(uint32_t reduce);
  Nanos RoofTime(uint32_t op) const;
  void ShareOverlap();
  void ShareReduce(uint32_t reduce);
  void Product(Ops& ops, const float* x, uint64_t rows, std::span<MatMulTask> tasks,
               Int8Parts parts, Scratch& scratch);

  // Movements (executor_moves.cc).
  void Reduce(const CompiledOp& op);
  void Gather(const CompiledOp& op);
  void Transfer(const CompiledOp& op);
  void Fetch(const CompiledOp& op);
  void CopyWeights(const CompiledOp& op, TrafficLedger& ledger);
  void MoveKv(const CompiledOp& op);
  CollectiveContext Context(const CompiledOp& op);
  CollectiveRank RankOf(const CompiledOp& op, size_t i);
  CollectiveRank EndOf(const CompiledOp& op, size_t i);  // without operands
  // The queue of op.devices[i]; null where there are none.
  DeviceQueue* QueueOf(const CompiledOp& op, size_t i) const {
    return order_ == nullptr ? nullptr : order_->QueueOf(*op.op, i);
  }

  const Block& BlockOf(const Op& op) const { return graph_.at(op.block); }
  const ValueInfo& InfoOf(ValueId id) const { return trace_.info->values[id]; }
  ValueMemory& Value(ValueId id) { return values_[id]; }
  size_t DeviceIndex(DeviceId id) const { return static_cast<size_t>(id.value); }
  Ops& OpsOf(const CompiledOp& op) const { return *ops_[DeviceIndex(op.op->devices[0])]; }

  const ExecutorSetup setup_;
  const BlockGraph& graph_;
  const std::span<const std::unique_ptr<Device>> devices_;
  std::vector<Ops*> ops_;  // by device
  const RopeAngles rope_angles_;
  RopeParams rope_;
  TrafficLedger ledger_;
  std::vector<std::unique_ptr<Transport>> transports_;  // one a path in use, between devices
  std::unique_ptr<Transport> host_transport_;
  std::vector<std::string> transport_names_;
  std::unique_ptr<WeightStore> weights_;
  // Where a fetch's source is not page-locked: by device, null of those that fetch none such.
  std::unique_ptr<CopyTeam> copy_team_;
  std::vector<std::unique_ptr<StagingRing>> rings_;
  std::unique_ptr<KvCache> kv_;
  uint32_t n_pages_ = 0;
  std::vector<CompiledProgram> programs_;  // parallel to plan->programs
  std::vector<std::vector<Bytes>> step_weights_;
  std::vector<uint32_t> max_scored_rows_;  // by lane
  std::vector<Buffer> arenas_;             // by device
  std::vector<Buffer> scratch_;            // by device
  // By device, the parts of the scratch that kernels and collectives take: the whole for either
  // where ops follow one another, apart where they run side by side.
  std::vector<ScratchRoom> kernel_rooms_, comm_rooms_;
  Buffer host_ids_;                    // sampled ids as the host sees them
  std::unique_ptr<StepOrder> order_;   // where devices work on their own time
  std::unique_ptr<FetchAhead> ahead_;  // likewise
  QueueRecorder* recorder_ = nullptr;  // where steps are recorded
  StepGraphs graphs_;
  Buffer host_logits_;  // likewise: logits, or their largest, on their way to the sink

  // The step at hand; memory kept from step to step.
  std::vector<Microbatch> microbatches_;
  std::vector<LaidValue> laid_;
  std::vector<ValueMemory> values_;
  std::vector<SequenceRows> pass_sequences_;
  ScratchRoom room_;  // of the RUN at hand
  std::vector<CollectiveRank> ranks_;
  std::vector<DirectEnd> ends_;
  std::vector<DirectRows> rows_;
  std::vector<uint64_t> cuts_;
  std::vector<ColumnShard> columns_;
  // Layouts in use, one a program; valid for `shapes`.
  struct CachedLayout {
    std::vector<MicrobatchShape> shapes;
    ValueLayout layout;
    ValueLayout largest;  // for any step
    // PREFILL: for any step of one sequence with all its rows sampled, up to these shapes.
    ValueLayout scored;
    std::vector<MicrobatchShape> scored_shapes;
  };
  std::vector<CachedLayout> layouts_;
  std::vector<PendingLogits> pending_;
  StepGraphKey graph_key_;
  std::vector<StepRows> step_rows_;
  uint32_t top_k_ = 0;        // largest logits a row that cross to the host; 0: all logits do
  uint64_t landing_row_ = 0;  // bytes of host_logits_ that a row takes
  // By op: the ADD that a NORM runs with, the ALL_REDUCE that an ADD does, else kNoOp.
  std::vector<uint32_t> run_with_;
  std::vector<std::pair<uint32_t, Nanos>> sampled_;  // SAMPLE ops, and when their ids were chosen
  StepTrace trace_;
};

}  // namespace tandem
