// One pass in list order, with the last op of each queue, the reader list of each slot and the KV
// writers of each block as its state.
#include "engine/plan/dependencies.h"

#include <map>
#include <utility>

#include "engine/base/check.h"

namespace tandem {
namespace {

class DependencyPass {
 public:
  DependencyPass(const BlockGraph& graph, const Program& program, const ProgramInfo& info)
      : graph_(graph), program_(program), info_(info), found_(program.ops.size()) {}

  std::vector<std::vector<Dependency>> Run() {
    for (uint32_t i = 0; i < program_.ops.size(); ++i) {
      const Op& op = program_.ops[i];
      Queues(op, i);
      for (ValueId id : op.in) {
        Check(id < info_.values.size(), "dependencies: an operand the program does not have");
        Add(i, info_.values[id].def_op, DependencyKind::kValue);
      }
      Slots(op, i);
      Kv(op, i);
    }
    return std::move(found_);
  }

 private:
  // What a slot holds and who reads it.
  struct SlotState {
    bool filled = false;
    uint32_t fetch_op = 0;
    std::vector<uint32_t> readers;
  };
  // An op after which KV of `units` for one microbatch is current on `device`.
  struct KvWrite {
    uint32_t op = 0;
    DeviceId device;
    UnitRange units;
    uint32_t microbatch = 0;
    bool moved = false;
  };

  void Add(uint32_t op, uint32_t on, DependencyKind kind) {
    Check(on < op, "dependencies: an op that waits for a later one");
    found_[op].push_back(Dependency{on, kind});
  }

  void Queues(const Op& op, uint32_t index) {
    for (size_t d = 0; d < op.devices.size(); ++d) {
      if (op.devices[d].IsHost()) continue;
      auto [place, fresh] = last_in_queue_.try_emplace({op.devices[d], QueueOn(op, d)}, index);
      if (!fresh && place->second != index) Add(index, place->second, DependencyKind::kQueue);
      place->second = index;
    }
  }

  void Slots(const Op& op, uint32_t index) {
    if (op.kind == OpKind::kFetch && op.slot) {
      SlotState& slot = slots_[*op.slot];
      if (slot.filled) Add(index, slot.fetch_op, DependencyKind::kSlot);
      for (uint32_t reader : slot.readers) Add(index, reader, DependencyKind::kSlot);
      slot = SlotState{true, index, {}};
    }
    if (op.kind != OpKind::kRun || info_.weights.empty()) return;
    for (const WeightSource& source : info_.weights[index]) {
      if (!source.slot) continue;
      Add(index, source.fetch_op, DependencyKind::kWeights);
      slots_[*source.slot].readers.push_back(index);
    }
  }

  // A RUN appends rows and reads those before them; only what another device computed has to be
  // waited for, as a device's own RUNs follow one another in its compute queue. A KV_MOVE copies
  // the rows that its source has for this step.
  void Kv(const Op& op, uint32_t index) {
    bool run = op.kind == OpKind::kRun && graph_.at(op.block).kind == BlockKind::kAttention;
    if (!run && op.kind != OpKind::kKvMove) return;
    std::vector<KvWrite>& writes = kv_[op.block];
    for (const KvWrite& write : writes) {
      bool overlap = write.units.begin < op.units.end && op.units.begin < write.units.end;
      if (!overlap || write.device != op.devices[0] || !SameRows(write, op, run)) continue;
      if (write.moved || !run) Add(index, write.op, DependencyKind::kKv);
    }
    writes.push_back(
        KvWrite{index, run ? op.devices[0] : op.devices[1], op.units, op.microbatch, !run});
  }

  // Whether `op` reads the rows of this write: its own microbatch's, and, where microbatches are
  // chunks of the same sequences, a RUN those of earlier ones too.
  bool SameRows(const KvWrite& write, const Op& op, bool run) const {
    if (write.microbatch == op.microbatch) return true;
    return run && program_.microbatch_kind != MicrobatchKind::kBySequence;
  }

  const BlockGraph& graph_;
  const Program& program_;
  const ProgramInfo& info_;
  std::vector<std::vector<Dependency>> found_;
  std::map<std::pair<DeviceId, QueueKind>, uint32_t> last_in_queue_;
  std::map<SlotId, SlotState> slots_;
  std::map<BlockId, std::vector<KvWrite>> kv_;
};

}  // namespace

bool IsCompute(OpKind kind) {
  return kind == OpKind::kRun || kind == OpKind::kNorm || kind == OpKind::kAdd ||
         kind == OpKind::kSample;
}

QueueKind QueueOn(const Op& op, size_t index) {
  if (op.queue) return *op.queue;
  if (op.kind == OpKind::kFetch || op.kind == OpKind::kKvMove) {
    return index == 0 ? QueueKind::kCopyOut : QueueKind::kCopyIn;
  }
  return DefaultQueue(op.kind);
}

std::vector<std::vector<Dependency>> DependenciesOf(const BlockGraph& graph, const Program& program,
                                                    const ProgramInfo& info) {
  return DependencyPass(graph, program, info).Run();
}

}  // namespace tandem
