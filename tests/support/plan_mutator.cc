// The edits of the mutation fuzz. See mutation.h.
#include <algorithm>
#include <map>

#include "tests/support/mutation.h"

namespace tandem::testing {
namespace {

class Mutator {
 public:
  Mutator(Plan& plan, const BlockGraph& graph, std::mt19937_64& random)
      : plan_(plan), graph_(graph), random_(random) {}

  void Edit() {
    program_ = &Any(plan_.programs);
    if (program_->ops.empty()) return;
    uint32_t choice = Below(40);
    if (choice < 8) {
      EditList();
    } else if (choice < 28) {
      EditOp(Any(program_->ops));
    } else if (choice < 33) {
      EditPlacesAndSlots();
    } else if (choice < 37) {
      EditProgram();
    } else {
      Insert();
    }
    if (Below(16) != 0) Renumber();
  }

 private:
  uint32_t Below(size_t n) { return n == 0 ? 0 : static_cast<uint32_t>(random_() % n); }
  template <typename T>
  T& Any(std::vector<T>& values) {
    return values[Below(values.size())];
  }
  DeviceId AnyDevice() {
    return DeviceId{static_cast<int32_t>(Below(plan_.n_devices + (Below(30) == 0)))};
  }
  BlockId AnyBlock() { return BlockId{Below(graph_.size() + (Below(30) == 0))}; }
  UnitRange AnyUnits(BlockId block) {
    uint32_t n = block.value < graph_.size() ? graph_.at(block).units : 2;
    UnitRange r{Below(n + 1), Below(n + 1)};
    if (r.begin > r.end && Below(16) != 0) std::swap(r.begin, r.end);
    return r;
  }
  void Nudge(UnitRange& r) {
    uint32_t& edge = Below(2) == 0 ? r.begin : r.end;
    if (Below(2) == 0) {
      ++edge;
    } else if (edge > 0) {
      --edge;
    }
  }

  void EditList() {
    auto& ops = program_->ops;
    uint32_t i = Below(ops.size());
    switch (Below(4)) {
      case 0:
        ops.erase(ops.begin() + i);
        return;
      case 1: {
        Op copy = ops[i];
        ops.insert(ops.begin() + Below(ops.size() + 1), copy);
        return;
      }
      case 2:
        if (i + 1 < ops.size()) std::swap(ops[i], ops[i + 1]);
        return;
      default: {
        Op moved = ops[i];
        ops.erase(ops.begin() + i);
        ops.insert(ops.begin() + Below(ops.size() + 1), moved);
      }
    }
  }

  void EditOp(Op& op) {
    constexpr OpKind kSimilar[][2] = {{OpKind::kAllReduce, OpKind::kReduceScatter},
                                      {OpKind::kReduceScatter, OpKind::kAllReduce},
                                      {OpKind::kReduceScatter, OpKind::kAllGather},
                                      {OpKind::kAllGather, OpKind::kReduceScatter},
                                      {OpKind::kRun, OpKind::kNorm},
                                      {OpKind::kNorm, OpKind::kRun},
                                      {OpKind::kFetch, OpKind::kKvMove},
                                      {OpKind::kKvMove, OpKind::kFetch}};
    switch (Below(12)) {
      case 0:
        if (!op.devices.empty()) Any(op.devices) = AnyDevice();
        return;
      case 1:
        Nudge(op.units);
        return;
      case 2:
        op.units = AnyUnits(op.block);
        return;
      case 3:
        op.microbatch = Below(program_->microbatches + (Below(30) == 0));
        return;
      case 4:
        if (!op.in.empty()) Any(op.in) = Below(Values());
        return;
      case 5:
        if (!op.in.empty()) Any(op.in) += Below(2) == 0 ? 1 : -1;
        return;
      case 6:
        if (!plan_.slots.empty()) op.slot = Below(plan_.slots.size() + (Below(30) == 0));
        return;
      case 7:
        if (Below(2) == 0) {
          // Any kind, and one that is none.
          op.kind = static_cast<OpKind>(
              Below(size_t{2} + static_cast<uint8_t>(OpKind::kReservedKvShard)));
        } else {
          const auto& pair = kSimilar[Below(std::size(kSimilar))];
          if (op.kind == pair[0]) op.kind = pair[1];
        }
        return;
      case 8:
        op.block = Below(2) == 0 ? AnyBlock() : BlockId{op.block.value + (Below(2) == 0 ? 1 : -1)};
        return;
      case 9:
        EditHow(op);
        return;
      case 10:
        SwapRanks(op);
        return;
      default:
        DropRank(op);
    }
  }

  void EditHow(Op& op) {
    switch (Below(3)) {
      case 0:
        op.path = static_cast<PathKind>(Below(7));
        return;
      case 1:
        op.queue = static_cast<QueueKind>(Below(5));
        return;
      default:
        op.algorithm = static_cast<Algorithm>(Below(4));
    }
  }

  void SwapRanks(Op& op) {
    if (op.devices.size() < 2) return;
    uint32_t i = Below(op.devices.size()), k = Below(op.devices.size());
    if (Below(2) == 0) std::swap(op.devices[i], op.devices[k]);
    if (Below(2) == 0 && i < op.in.size() && k < op.in.size()) std::swap(op.in[i], op.in[k]);
    if (Below(2) == 0 && i < op.out.size() && k < op.out.size()) std::swap(op.out[i], op.out[k]);
  }

  void DropRank(Op& op) {
    uint32_t i = Below(op.devices.size());
    if (i >= op.in.size() || i >= op.out.size()) return;
    op.devices.erase(op.devices.begin() + i);
    op.in.erase(op.in.begin() + i);
    op.out.erase(op.out.begin() + i);
  }

  void EditPlacesAndSlots() {
    switch (Below(8)) {
      case 0:
        if (!plan_.places.empty())
          plan_.places.erase(plan_.places.begin() + Below(plan_.places.size()));
        return;
      case 1:
        if (!plan_.places.empty()) Any(plan_.places).device = Below(5) == 0 ? kHost : AnyDevice();
        return;
      case 2:
        if (!plan_.places.empty()) Nudge(Any(plan_.places).units);
        return;
      case 3:
        if (!plan_.places.empty()) Any(plan_.places).block = AnyBlock();
        return;
      case 4:
        if (!plan_.slots.empty()) Any(plan_.slots).bytes.value -= Below(100);
        return;
      case 5:
        if (!plan_.slots.empty()) Any(plan_.slots).device = AnyDevice();
        return;
      default:
        // With every weight everywhere, the other rules stand alone.
        for (uint32_t d = 0; d < plan_.n_devices; ++d) {
          for (uint32_t b = 0; b < graph_.size(); ++b) {
            plan_.places.push_back(
                {BlockId{b}, graph_.blocks[b].AllUnits(), DeviceId{static_cast<int32_t>(d)}});
          }
        }
        Edit();
    }
  }

  void EditProgram() {
    Program& p = *program_;
    switch (Below(9)) {
      case 0:
        p.microbatches += Below(2) == 0 ? 1 : -1;
        return;
      case 1:
        p.microbatch_kind = static_cast<MicrobatchKind>(Below(4));
        return;
      case 2:
        for (Op& op : p.ops) {
          if (op.kind == OpKind::kFetch || p.microbatches == 0) continue;
          op.microbatch = (op.microbatch + 1) % p.microbatches;
        }
        return;
      case 3:
        SwapDevices(AnyDevice(), AnyDevice());
        return;
      case 4: {
        Program& other = Any(plan_.programs);
        std::swap(p.ops, other.ops);
        if (Below(2) == 0) std::swap(p.microbatches, other.microbatches);
        if (Below(2) == 0) std::swap(p.microbatch_kind, other.microbatch_kind);
        return;
      }
      case 5:
        if (Below(2) == 0) p.lane = Below(plan_.n_lanes + 1);
        if (Below(2) == 0) p.kind = static_cast<ProgramKind>(Below(4));
        return;
      case 6: {
        Op copy = Any(Any(plan_.programs).ops);
        p.ops.insert(p.ops.begin() + Below(p.ops.size() + 1), copy);
        return;
      }
      case 7: {
        // One block's units or operands, all at once.
        BlockId block = AnyBlock();
        UnitRange from = AnyUnits(block), to = AnyUnits(block);
        for (Op& op : p.ops) {
          if (op.block == block && op.units == from) op.units = to;
        }
        return;
      }
      default:
        plan_.n_devices += Below(2) == 0 ? 1 : -1;
    }
  }

  void SwapDevices(DeviceId a, DeviceId b) {
    for (Op& op : program_->ops) {
      for (DeviceId& d : op.devices) d = d == a ? b : d == b ? a : d;
    }
  }

  // An op that was not there, whose result may take its operand's place further on.
  void Insert() {
    auto& ops = program_->ops;
    uint32_t at = Below(ops.size() + 1);
    Op op;
    op.microbatch = Below(program_->microbatches);
    uint32_t values = ValuesBefore(at);
    switch (Below(4)) {
      case 0:
        op.kind = OpKind::kTransfer;
        op.devices = {AnyDevice(), AnyDevice()};
        op.in = {Below(values)};
        break;
      case 1:
        op.kind = OpKind::kKvMove;
        op.devices = {AnyDevice(), AnyDevice()};
        op.block = AnyBlock();
        op.units = AnyUnits(op.block);
        break;
      case 2:
        op.kind = OpKind::kFetch;
        op.microbatch = 0;
        op.devices = {Below(2) == 0 ? kHost : AnyDevice(), AnyDevice()};
        op.block = AnyBlock();
        op.units = AnyUnits(op.block);
        op.slot = Below(plan_.slots.size());
        break;
      default:
        op.devices = {AnyDevice()};
        op.block = AnyBlock();
        op.units = AnyUnits(op.block);
        if (op.block.value != 0) op.in = {Below(values)};
    }
    bool gives = op.kind == OpKind::kTransfer || op.kind == OpKind::kRun;
    if (gives) {
      op.out = {kFresh};
      if (!op.in.empty()) {
        ValueId old = op.in[0];
        // The operand's owner decides the device, most of the time.
        const Op* owner = OwnerOf(old);
        if (owner != nullptr && Below(8) != 0) {
          op.microbatch = owner->microbatch;
          size_t rank = old - owner->out[0];
          bool collective = owner->out.size() > 1 && rank < owner->devices.size();
          op.devices[0] = collective ? owner->devices[rank] : owner->devices.back();
        }
        for (uint32_t i = at; i < ops.size(); ++i) {
          for (ValueId& id : ops[i].in) {
            if (id == old && Below(2) == 0) id = kFresh;
          }
        }
      }
    }
    ops.insert(ops.begin() + at, std::move(op));
  }

  const Op* OwnerOf(ValueId id) const {
    for (const Op& op : program_->ops) {
      if (std::find(op.out.begin(), op.out.end(), id) != op.out.end()) return &op;
    }
    return nullptr;
  }
  uint32_t ValuesBefore(uint32_t at) const {
    uint32_t n = 0;
    for (uint32_t i = 0; i < at && i < program_->ops.size(); ++i) {
      n += static_cast<uint32_t>(program_->ops[i].out.size());
    }
    return n;
  }
  uint32_t Values() const { return ValuesBefore(static_cast<uint32_t>(program_->ops.size())); }

  // Makes ids dense again, each operand following its value; a value defined twice may be read as
  // either, and an operand without a definition becomes any earlier value.
  void Renumber() {
    for (Program& program : plan_.programs) {
      std::map<ValueId, ValueId> to;
      ValueId next = 0;
      for (Op& op : program.ops) {
        for (ValueId& id : op.in) {
          auto found = to.find(id);
          id = found != to.end() ? found->second : Below(next);
        }
        for (ValueId& id : op.out) {
          if (to.count(id) == 0 || Below(2) == 0) to[id] = next;
          id = next++;
        }
      }
    }
  }

  static constexpr ValueId kFresh = 1u << 30;

  Plan& plan_;
  const BlockGraph& graph_;
  std::mt19937_64& random_;
  Program* program_ = nullptr;
};

}  // namespace

Plan Mutate(const Plan& plan, const BlockGraph& graph, std::mt19937_64& random) {
  Plan mutant = plan;
  Mutator mutator(mutant, graph, random);
  uint64_t edits = 1 + (random() % 8 < 3) + (random() % 8 < 1);
  for (uint64_t i = 0; i < edits; ++i) mutator.Edit();
  return mutant;
}

}  // namespace tandem::testing
