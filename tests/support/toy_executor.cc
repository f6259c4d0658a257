// Executes a plan's ops on the toy model, one lane after the other. See toy_executor.h.
#include "tests/support/toy_executor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/plan/memory.h"

namespace tandem::testing {
namespace {

constexpr double kGarbage = std::numeric_limits<double>::quiet_NaN();

// A value as an executor has it: rows of some width in one device's memory.
struct Tensor {
  DeviceId device;
  uint32_t rows = 0;
  uint32_t width = 0;
  uint32_t column = 0;  // logits: the first vocabulary row
  std::vector<double> data;

  double* Row(uint32_t r) { return data.data() + size_t{r} * width; }
  const double* Row(uint32_t r) const { return data.data() + size_t{r} * width; }
};

Tensor Make(DeviceId device, uint32_t rows, uint32_t width, double value) {
  Tensor t;
  t.device = device;
  t.rows = rows;
  t.width = width;
  t.data.assign(size_t{rows} * width, value);
  return t;
}

class Lane {
 public:
  Lane(const ToyModel& model, const Plan& plan, uint32_t lane,
       const std::vector<ProgramInfo>* infos, const ToyWorkload& work)
      : model_(model), graph_(model.graph()), plan_(plan), infos_(infos), work_(work) {
    for (size_t p = 0; p < plan.programs.size(); ++p) {
      if (plan.programs[p].lane == lane)
        program_of_[plan.programs[p].kind != ProgramKind::kPrefill] = p;
    }
    first_head_.resize(graph_.size());
    for (uint32_t b = 0; b < graph_.size(); ++b) {
      first_head_[b] = heads_;
      if (graph_.blocks[b].kind == BlockKind::kAttention) heads_ += graph_.blocks[b].elems;
    }
    kv_row_ = 2 * model.head_dim();
    kv_.assign(size_t{plan.n_devices} * heads_ * work.slots * work.positions * kv_row_, kGarbage);
    resident_.resize(size_t{plan.n_devices + 1} * graph_.size());
    for (uint32_t i = 0; i < resident_.size(); ++i) {
      resident_[i].resize(graph_.blocks[i % graph_.size()].units);
    }
    for (const Place& place : plan.places) {
      auto& units = Resident(place.device, place.block.value);
      for (uint32_t u = place.units.begin; u < place.units.end; ++u) units[u] = true;
    }
  }

  void Step(const ToyStep& step, double* worst) {
    step_ = &step;
    worst_ = worst;
    size_t index = program_of_[step.kind != ProgramKind::kPrefill];
    program_ = &plan_.programs[index];
    info_ = infos_ != nullptr ? &(*infos_)[index] : nullptr;
    CutRows();
    values_.clear();
    slots_.assign(plan_.slots.size(), {});
    times_sampled_.assign(step.rows.size(), 0);
    for (uint32_t i = 0; i < program_->ops.size(); ++i) Execute(program_->ops[i], i);
    for (size_t r = 0; r < step.rows.size(); ++r) {
      if (times_sampled_[r] != (step.rows[r].sampled ? 1u : 0u)) *worst_ = kGarbage;
    }
  }

 private:
  struct Content {
    bool good = false;
    uint32_t block = 0;
    UnitRange units;
  };

  std::vector<bool>& Resident(DeviceId device, uint32_t block) {
    return resident_[static_cast<size_t>(device.value + 1) * graph_.size() + block];
  }

  void CutRows() {
    auto n = static_cast<uint32_t>(step_->rows.size());
    uint32_t count = program_->microbatches;
    rows_.assign(count, {});
    for (uint32_t r = 0, m = 0; r < n; ++r) {
      if (program_->microbatch_kind == MicrobatchKind::kBySequence) {
        m = step_->rows[r].slot % count;
      } else {
        while (r >= uint64_t{n} * (m + 1) / count) ++m;
      }
      rows_[m].push_back(r);
    }
  }
  std::vector<uint32_t> SampledRows(uint32_t m) const {
    std::vector<uint32_t> sampled;
    for (uint32_t r : rows_[m]) {
      if (step_->rows[r].sampled) sampled.push_back(r);
    }
    return sampled;
  }

  // An operand as the op finds it: garbage of the wanted shape unless it is there in that shape.
  Tensor Operand(const Op& op, size_t i, uint32_t rows, uint32_t width) const {
    DeviceId device = op.in.size() == op.devices.size() ? op.devices[i] : op.devices[0];
    const Tensor& t = values_[op.in[i]];
    if (t.device == device && t.rows == rows && t.width == width) return t;
    return Make(device, rows, width, kGarbage);
  }

  void Execute(const Op& op, uint32_t index) {
    switch (op.kind) {
      case OpKind::kRun:
        return values_.push_back(Run(op, index));
      case OpKind::kNorm:
        return values_.push_back(Norm(op));
      case OpKind::kAdd:
        return values_.push_back(Add(op));
      case OpKind::kSample:
        return Sample(op);
      case OpKind::kAllReduce:
      case OpKind::kReduceScatter:
        return Reduce(op);
      case OpKind::kAllGather:
        return Gather(op);
      case OpKind::kTransfer: {
        const Tensor& from = values_[op.in[0]];
        Tensor to = from;
        if (from.device != op.devices[0]) std::fill(to.data.begin(), to.data.end(), kGarbage);
        to.device = op.devices[1];
        return values_.push_back(std::move(to));
      }
      case OpKind::kFetch:
        return Fetch(op);
      case OpKind::kKvMove:
        return KvMove(op);
      default:
        return;
    }
  }

  bool AllResident(DeviceId device, uint32_t block, UnitRange units) {
    for (uint32_t u = units.begin; u < units.end; ++u) {
      if (!Resident(device, block)[u]) return false;
    }
    return true;
  }

  void Fetch(const Op& op) {
    const Slot& slot = plan_.slots[*op.slot];
    slots_[*op.slot] = {op.devices[1] == slot.device &&
                            graph_.at(op.block).UnitBytes(op.units) <= slot.bytes &&
                            AllResident(op.devices[0], op.block.value, op.units),
                        op.block.value, op.units};
  }

  bool InSlot(SlotId slot, const Op& op, UnitRange units) const {
    const Content& c = slots_[slot];
    return plan_.slots[slot].device == op.devices[0] && c.good && c.block == op.block.value &&
           c.units.Contains(units);
  }

  bool WeightsThere(const Op& op, uint32_t index) {
    if (info_ == nullptr) {
      for (uint32_t u = op.units.begin; u < op.units.end; ++u) {
        bool there = Resident(op.devices[0], op.block.value)[u];
        for (SlotId s = 0; s < slots_.size(); ++s) there = there || InSlot(s, op, {u, u + 1});
        if (!there) return false;
      }
      return true;
    }
    uint32_t next = op.units.begin;
    for (const WeightSource& source : info_->weights[index]) {
      if (source.units.begin != next) return false;
      next = source.units.end;
      bool there = source.slot ? InSlot(*source.slot, op, source.units)
                               : AllResident(op.devices[0], op.block.value, source.units);
      if (!there) return false;
    }
    return next >= op.units.end;
  }

  Tensor Run(const Op& op, uint32_t index) {
    const Block& block = graph_.at(op.block);
    uint32_t b = op.block.value;
    uint32_t begin = block.ElemBegin(op.units), end = block.ElemEnd(op.units);
    bool head = op.block == graph_.head();
    const std::vector<uint32_t>& all = rows_[op.microbatch];
    std::vector<uint32_t> rows = head ? SampledRows(op.microbatch) : all;
    auto n_rows = static_cast<uint32_t>(rows.size());
    Tensor y = Make(op.devices[0], n_rows, head ? end - begin : model_.hidden(), 0.0);
    y.column = begin;
    if (!WeightsThere(op, index)) {
      std::fill(y.data.begin(), y.data.end(), kGarbage);
      return y;
    }
    if (b == 0) {
      for (uint32_t r = 0; r < n_rows; ++r) {
        uint32_t token = step_->rows[rows[r]].token;
        for (uint32_t e = begin; e < end; ++e) {
          model_.EmbedElement(model_.Element(0, e), token, e, y.Row(r));
        }
      }
      return y;
    }
    Tensor n = Operand(op, 0, n_rows, model_.hidden());
    for (uint32_t e = begin; e < end; ++e) {
      const double* w = model_.Element(b, e);
      if (block.kind == BlockKind::kAttention) {
        AttendRows(op, first_head_[b] + e, w, n, y);
        continue;
      }
      for (uint32_t r = 0; r < n_rows; ++r) {
        if (head) {
          y.Row(r)[e - begin] = model_.Dot(w, n.Row(r));
        } else {
          model_.MlpElement(w, n.Row(r), y.Row(r));
        }
      }
    }
    return y;
  }

  double* Kv(DeviceId device, uint32_t head, uint32_t slot, uint32_t position) {
    size_t i = static_cast<size_t>(device.value) * heads_ + head;
    return &kv_[((i * work_.slots + slot) * work_.positions + position) * kv_row_];
  }

  void AttendRows(const Op& op, uint32_t head, const double* w, const Tensor& n, Tensor& y) {
    const std::vector<uint32_t>& rows = rows_[op.microbatch];
    for (uint32_t r = 0; r < rows.size(); ++r) {
      const ToyRow& row = step_->rows[rows[r]];
      model_.KeyValue(w, n.Row(r), row.position, Kv(op.devices[0], head, row.slot, row.position));
    }
    for (uint32_t r = 0; r < rows.size(); ++r) {
      const ToyRow& row = step_->rows[rows[r]];
      model_.Attend(w, n.Row(r), Kv(op.devices[0], head, row.slot, 0), row.position + 1, y.Row(r));
    }
  }

  void KvMove(const Op& op) {
    const Block& block = graph_.at(op.block);
    if (block.kind != BlockKind::kAttention) return;
    for (uint32_t e = block.ElemBegin(op.units); e < block.ElemEnd(op.units); ++e) {
      for (uint32_t r : rows_[op.microbatch]) {
        const ToyRow& row = step_->rows[r];
        uint32_t head = first_head_[op.block.value] + e;
        std::copy_n(Kv(op.devices[0], head, row.slot, row.position), kv_row_,
                    Kv(op.devices[1], head, row.slot, row.position));
      }
    }
  }

  Tensor Norm(const Op& op) {
    const Tensor& any = values_[op.in[0]];
    const std::vector<uint32_t>& all = rows_[op.microbatch];
    bool head = op.block == graph_.head();
    // Only HEAD's norm needs to know which rows it has; others take what rows there are.
    Tensor x = Operand(op, 0, head ? static_cast<uint32_t>(all.size()) : any.rows, model_.hidden());
    Tensor n = Make(op.devices[0], 0, model_.hidden(), 0.0);
    for (uint32_t r = 0; r < x.rows; ++r) {
      if (head && !step_->rows[all[r]].sampled) continue;
      n.data.resize(n.data.size() + n.width);
      model_.Normed(op.block.value, x.Row(r), n.Row(n.rows++));
    }
    return n;
  }

  Tensor Add(const Op& op) {
    Tensor x = Operand(op, 0, values_[op.in[0]].rows, model_.hidden());
    Tensor y = Operand(op, 1, x.rows, x.width);
    for (size_t i = 0; i < x.data.size(); ++i) x.data[i] += y.data[i];
    return x;
  }

  void Reduce(const Op& op) {
    uint32_t rows = values_[op.in[0]].rows, width = values_[op.in[0]].width;
    Tensor sum = Operand(op, 0, rows, width);
    for (size_t i = 1; i < op.in.size(); ++i) {
      Tensor part = Operand(op, i, rows, width);
      for (size_t k = 0; k < sum.data.size(); ++k) sum.data[k] += part.data[k];
    }
    auto ranks = static_cast<uint32_t>(op.devices.size());
    uint32_t first = 0;
    for (uint32_t i = 0; i < ranks; ++i) {
      Tensor out = sum;
      if (op.kind == OpKind::kReduceScatter) {
        out.rows = ShardRows(rows, i, ranks);
        out.data.assign(sum.data.begin() + size_t{first} * width,
                        sum.data.begin() + size_t{first + out.rows} * width);
        first += out.rows;
      }
      out.device = op.devices[i];
      values_.push_back(std::move(out));
    }
  }

  void Gather(const Op& op) {
    auto ranks = static_cast<uint32_t>(op.devices.size());
    bool logits = IsLogits(op.in[0]);
    uint32_t rows = 0;
    for (ValueId id : op.in) rows += values_[id].rows;
    Tensor whole;
    if (logits) {
      rows = values_[op.in[0]].rows;
      whole = Make(op.devices[0], rows, model_.vocab(), kGarbage);
    } else {
      whole = Make(op.devices[0], 0, model_.hidden(), 0.0);
    }
    for (uint32_t i = 0; i < ranks; ++i) {
      const Tensor& any = values_[op.in[i]];
      if (logits) {
        Tensor part = Operand(op, i, rows, any.width);
        part.column = any.column;
        if (part.column + part.width > whole.width) continue;
        for (uint32_t r = 0; r < rows; ++r) {
          std::copy_n(part.Row(r), part.width, whole.Row(r) + part.column);
        }
      } else {
        Tensor part = Operand(op, i, ShardRows(rows, i, ranks), whole.width);
        whole.data.insert(whole.data.end(), part.data.begin(), part.data.end());
        whole.rows += part.rows;
      }
    }
    for (DeviceId device : op.devices) {
      whole.device = device;
      values_.push_back(whole);
    }
  }

  // An executor knows values by what the op that gives them is.
  bool IsLogits(ValueId id) const {
    ValueId next = 0;
    for (const Op& op : program_->ops) {
      next += static_cast<ValueId>(op.out.size());
      if (id >= next) continue;
      if (op.kind == OpKind::kRun) return op.block == graph_.head();
      bool passes = op.kind == OpKind::kTransfer || op.kind == OpKind::kAllGather;
      return passes && IsLogits(op.in[0]);
    }
    return false;
  }

  void Sample(const Op& op) {
    std::vector<uint32_t> rows = SampledRows(op.microbatch);
    Tensor logits = Operand(op, 0, static_cast<uint32_t>(rows.size()), model_.vocab());
    for (uint32_t r = 0; r < rows.size(); ++r) {
      const ToyRow& row = step_->rows[rows[r]];
      ++times_sampled_[rows[r]];
      const double* right = &work_.logits[row.slot][size_t{row.position} * model_.vocab()];
      for (uint32_t v = 0; v < model_.vocab(); ++v) {
        double error = std::abs(logits.Row(r)[v] - right[v]);
        if (!(error <= *worst_)) *worst_ = std::isnan(*worst_) ? *worst_ : error;
      }
    }
  }

  const ToyModel& model_;
  const BlockGraph& graph_;
  const Plan& plan_;
  const std::vector<ProgramInfo>* infos_;
  const ToyWorkload& work_;
  size_t program_of_[2] = {0, 0};
  std::vector<uint32_t> first_head_;  // by block
  uint32_t heads_ = 0;
  uint32_t kv_row_ = 0;
  std::vector<double> kv_;                   // [device][head][slot][position][key, value]
  std::vector<std::vector<bool>> resident_;  // [device + 1][block]: by unit

  const ToyStep* step_ = nullptr;
  const Program* program_ = nullptr;
  const ProgramInfo* info_ = nullptr;
  double* worst_ = nullptr;
  std::vector<std::vector<uint32_t>> rows_;  // by microbatch: rows of the step
  std::vector<Tensor> values_;
  std::vector<Content> slots_;
  std::vector<uint32_t> times_sampled_;  // by row
};

}  // namespace

uint32_t SequencesFor(const Plan& plan) {
  uint64_t classes = 1;
  for (const Program& program : plan.programs) {
    if (program.microbatch_kind == MicrobatchKind::kBySequence) {
      classes = std::lcm(classes, uint64_t{program.microbatches});
    }
  }
  return static_cast<uint32_t>(std::clamp<uint64_t>(classes, 2, 12));
}

ToyWorkload Workload(const ToyModel& model, uint32_t sequences) {
  ToyWorkload work;
  work.slots = sequences;
  work.positions = 6;
  uint32_t vocab = model.vocab();
  auto token = [vocab](uint32_t slot, uint32_t t) { return (slot * 5 + t * t * 3 + t) % vocab; };
  for (uint32_t s = 0; s < sequences; ++s) {
    std::vector<uint32_t> tokens;
    for (uint32_t t = 0; t < work.positions; ++t) tokens.push_back(token(s, t));
    work.logits.push_back(model.Forward(tokens));
  }
  auto add = [&](ProgramKind kind, uint32_t begin, uint32_t end) {
    ToyStep& step = work.steps.emplace_back();
    step.kind = kind;
    for (uint32_t s = 0; s < sequences; ++s) {
      for (uint32_t t = begin; t < end; ++t) {
        // The first chunk of a longer prompt has nothing to sample; every other sequence's is one.
        bool last = t + 1 == end && !(begin == 0 && s % 2 == 1);
        step.rows.push_back({s, t, token(s, t), last});
      }
    }
  };
  add(ProgramKind::kPrefill, 0, 3);
  add(ProgramKind::kPrefill, 3, 4);
  add(ProgramKind::kDecode, 4, 5);
  add(ProgramKind::kDecode, 5, 6);
  return work;
}

ToyRun ExecuteToy(const ToyModel& model, const Plan& plan, const std::vector<ProgramInfo>* programs,
                  const ToyWorkload& workload) {
  ToyRun run;
  for (uint32_t lane = 0; lane < plan.n_lanes; ++lane) {
    Lane executor(model, plan, lane, programs, workload);
    for (const ToyStep& step : workload.steps) {
      executor.Step(step, &run.worst);
      if (!(run.worst < 1e-3)) return run;  // wrong enough
    }
  }
  return run;
}

}  // namespace tandem::testing
