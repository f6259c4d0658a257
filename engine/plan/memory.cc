// What a plan needs of each memory. See memory.h for what each column holds.
#include "engine/plan/memory.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/plan/verifier_internal.h"

namespace tandem {
namespace {

// The elements that ranges of two blocks' units cover, each counted once.
struct Elements {
  std::vector<std::pair<uint32_t, uint32_t>> ranges;
  uint64_t Count() {
    std::sort(ranges.begin(), ranges.end());
    uint64_t count = 0;
    uint32_t next = 0;
    for (auto [begin, end] : ranges) {
      begin = std::max(begin, next);
      if (begin < end) count += end - begin;
      next = std::max(next, end);
    }
    return count;
  }
};

// Tables by (device + 1, block): the host's row comes first.
class Needs {
 public:
  Needs(const Plan& plan, const std::vector<ProgramInfo>& programs, const BlockGraph& graph,
        const Rig& rig, const PlanLimits& limits)
      : plan_(plan), programs_(programs), graph_(graph), rig_(rig), limits_(limits) {
    size_t cells = size_t{plan.n_devices + 1} * graph.size();
    weights_.resize(cells);
    kv_.resize(cells);
    AddWeights();
    for (uint32_t lane = 0; lane < plan.n_lanes; ++lane) AddKv(lane);
    rows_.resize(plan.n_devices + 1);
    for (size_t row = 0; row < rows_.size(); ++row) {
      rows_[row].device = DeviceId{static_cast<int32_t>(row) - 1};
      rows_[row].capacity = row == 0 ? rig.host_memory : rig.devices[row - 1].memory;
      for (uint32_t b = 0; b < graph.size(); ++b) {
        rows_[row].weights += Bytes{weights_[row * graph.size() + b]};
        rows_[row].kv += Bytes{kv_[row * graph.size() + b]};
      }
    }
    for (const Slot& slot : plan.slots) RowOf(slot.device).slots += slot.bytes;
    AddActivations();
    AddWorkspace();
  }

  MemoryTable Table() const {
    MemoryTable table;
    table.rows.assign(rows_.begin() + 1, rows_.end());
    table.rows.push_back(rows_[0]);
    return table;
  }

  // The first block in chain order that does not fit beside what every step needs and the blocks
  // before it; nothing when not even the first fits.
  std::optional<BlockId> FirstThatDoesNotFit(const MemoryRow& row) const {
    Bytes used = row.slots + row.activations + row.workspace;
    if (used > row.capacity) return std::nullopt;
    auto base = static_cast<size_t>(row.device.value + 1) * graph_.size();
    for (uint32_t b = 0; b < graph_.size(); ++b) {
      used += Bytes{weights_[base + b] + kv_[base + b]};
      if (used > row.capacity) return BlockId{b};
    }
    return std::nullopt;
  }

 private:
  MemoryRow& RowOf(DeviceId device) { return rows_[static_cast<size_t>(device.value + 1)]; }
  size_t Cell(DeviceId device, BlockId block) const {
    return static_cast<size_t>(device.value + 1) * graph_.size() + block.value;
  }

  void AddWeights() {
    std::vector<Elements> held(weights_.size());
    for (const Place& place : plan_.places) {
      const Block& block = graph_.at(place.block);
      held[Cell(place.device, place.block)].ranges.emplace_back(block.ElemBegin(place.units),
                                                                block.ElemEnd(place.units));
    }
    uint32_t head = graph_.head().value;
    for (size_t cell = 0; cell < held.size(); ++cell) {
      uint32_t b = cell % graph_.size();
      uint64_t elements = held[cell].Count();
      if (graph_.tied && b == head) {
        // What EMBED holds of the shared weight is there already.
        Elements& embed = held[cell - head];
        uint64_t shared = embed.Count();
        embed.ranges.insert(embed.ranges.end(), held[cell].ranges.begin(), held[cell].ranges.end());
        elements = embed.Count() - shared;
      }
      weights_[cell] = elements * graph_.blocks[b].bytes_per_elem.value;
    }
    // The block's own norm where it is applied, its heads' norms where any unit runs.
    std::vector<bool> norm(weights_.size()), head_norm(weights_.size());
    for (const Program& program : plan_.programs) {
      for (const Op& op : program.ops) {
        if (op.kind == OpKind::kNorm) norm[Cell(op.devices[0], op.block)] = true;
        if (op.kind == OpKind::kRun) head_norm[Cell(op.devices[0], op.block)] = true;
      }
    }
    for (size_t cell = 0; cell < norm.size(); ++cell) {
      const Block& block = graph_.blocks[cell % graph_.size()];
      if (norm[cell]) weights_[cell] += block.norm_bytes.value;
      if (head_norm[cell]) weights_[cell] += block.head_norm_bytes.value;
    }
  }

  // Sequence slots whose number is c modulo `classes`.
  uint64_t SlotsInClass(uint32_t c, uint32_t classes) const {
    uint32_t n = limits_.max_sequences;
    return c < n ? (n - c - 1) / classes + 1 : 0;
  }

  void AddKv(uint32_t lane) {
    const Program& prefill = plan_.program(ProgramKind::kPrefill, lane);
    const Program& decode = plan_.program(ProgramKind::kDecode, lane);
    uint32_t classes = KvClasses(prefill, decode).value_or(1);
    // homes[cell][class * units + unit]
    std::vector<std::vector<bool>> homes(kv_.size());
    for (const Program* program : {&prefill, &decode}) {
      bool by_sequence = program->microbatch_kind == MicrobatchKind::kBySequence;
      for (const Op& op : program->ops) {
        bool attends = op.kind == OpKind::kRun && graph_.at(op.block).kind == BlockKind::kAttention;
        if (!attends && op.kind != OpKind::kKvMove) continue;
        uint32_t units = graph_.at(op.block).units;
        auto& home = homes[Cell(op.devices.back(), op.block)];
        home.resize(size_t{classes} * units);
        for (uint32_t c = 0; c < classes; ++c) {
          if (by_sequence && c % program->microbatches != op.microbatch) continue;
          for (uint32_t u = op.units.begin; u < op.units.end; ++u) home[c * units + u] = true;
        }
      }
    }
    uint64_t tokens = KvTokensPerSlot(limits_);
    for (size_t cell = 0; cell < homes.size(); ++cell) {
      if (homes[cell].empty()) continue;
      const Block& block = graph_.blocks[cell % graph_.size()];
      for (size_t i = 0; i < homes[cell].size(); ++i) {
        if (!homes[cell][i]) continue;
        auto u = static_cast<uint32_t>(i % block.units);
        auto c = static_cast<uint32_t>(i / block.units);
        kv_[cell] += tokens * SlotsInClass(c, classes) * block.KvBytesPerToken({u, u + 1}).value;
      }
    }
  }

  struct Rows {
    uint32_t all = 0;
    uint32_t sampled = 0;
  };
  // The most rows that microbatch m of a program can have.
  Rows MostRows(const Program& program, uint32_t m) const {
    uint32_t sequences = limits_.max_sequences;
    uint32_t step = program.kind == ProgramKind::kPrefill ? limits_.max_step_tokens : sequences;
    Rows rows{step, sequences};
    if (program.microbatch_kind == MicrobatchKind::kBySequence) {
      rows.sampled = static_cast<uint32_t>(SlotsInClass(m, program.microbatches));
      if (program.kind == ProgramKind::kDecode) rows.all = rows.sampled;
    } else {
      // Chunks are cut at floors, so any of them may have the larger count.
      uint32_t n = program.microbatches;
      rows.all = (step + n - 1) / n;
    }
    rows.sampled = std::min(rows.sampled, rows.all);
    return rows;
  }

  // One program's peak of live bytes by device. A prefill by sequence may put all its rows into any
  // one microbatch, so there the peak is over microbatches, not their sum.
  std::vector<uint64_t> PeakOf(const Program& program, const ProgramInfo& info) const {
    bool one_at_a_time = program.microbatch_kind == MicrobatchKind::kBySequence &&
                         program.kind == ProgramKind::kPrefill;
    uint32_t columns = one_at_a_time ? program.microbatches : 1;
    std::vector<uint64_t> live(size_t{plan_.n_devices} * columns), peak(plan_.n_devices);
    std::vector<Rows> rows;
    for (uint32_t m = 0; m < program.microbatches; ++m) rows.push_back(MostRows(program, m));
    auto bytes = [&](const ValueInfo& v) {
      return ValueBytes(graph_, v, rows[v.microbatch].all, rows[v.microbatch].sampled).value;
    };
    auto cell = [&](const ValueInfo& v) {
      return static_cast<size_t>(v.device.value) * columns + (one_at_a_time ? v.microbatch : 0);
    };
    for (uint32_t i = 0; i < program.ops.size(); ++i) {
      const Op& op = program.ops[i];
      for (ValueId id : op.out) {
        const ValueInfo& v = info.values[id];
        live[cell(v)] += bytes(v);
        uint64_t& most = peak[static_cast<size_t>(v.device.value)];
        most = std::max(most, live[cell(v)]);
      }
      for (const auto* ids : {&op.in, &op.out}) {
        for (ValueId id : *ids) {
          const ValueInfo& v = info.values[id];
          if (v.last_use == i) live[cell(v)] -= bytes(v);
        }
      }
    }
    return peak;
  }

  // Steps of one lane follow each other, those of different lanes may be under way at once.
  void AddActivations() {
    std::vector<uint64_t> lanes(size_t{plan_.n_lanes} * plan_.n_devices);
    for (size_t p = 0; p < plan_.programs.size(); ++p) {
      std::vector<uint64_t> peak = PeakOf(plan_.programs[p], programs_[p]);
      for (uint32_t d = 0; d < plan_.n_devices; ++d) {
        uint64_t& most = lanes[plan_.programs[p].lane * plan_.n_devices + d];
        most = std::max(most, peak[d]);
      }
    }
    for (size_t i = 0; i < lanes.size(); ++i) {
      rows_[1 + i % plan_.n_devices].activations += Bytes{lanes[i]};
    }
  }

  void AddWorkspace() {
    Bytes scratch =
        WorkspaceBytes(graph_, std::max(limits_.max_step_tokens, limits_.max_sequences));
    for (const Program& program : plan_.programs) {
      for (const Op& op : program.ops) {
        if (op.kind == OpKind::kRun) RowOf(op.devices[0]).workspace = scratch;
      }
    }
  }

  const Plan& plan_;
  const std::vector<ProgramInfo>& programs_;
  const BlockGraph& graph_;
  const Rig& rig_;
  const PlanLimits& limits_;
  std::vector<uint64_t> weights_;  // [device + 1][block]: bytes, norms included
  std::vector<uint64_t> kv_;       // the same
  std::vector<MemoryRow> rows_;    // [device + 1]
};

std::string NameOfBlock(const BlockGraph& graph, BlockId id) {
  const Block& block = graph.at(id);
  bool in_layer = block.kind != BlockKind::kEmbed && block.kind != BlockKind::kHead;
  return fmt::format("b{} ({}{})", id.value, ToString(block.kind),
                     in_layer ? fmt::format(" of layer {}", block.layer.value) : "");
}

}  // namespace

Bytes WorkspaceBytes(const BlockGraph& graph, uint32_t max_step_tokens) {
  const ModelConfig& c = graph.config;
  uint64_t rows = max_step_tokens;
  uint64_t widest = std::max({c.hidden, c.q_dim(), c.ffn});
  uint64_t floats = 2 * uint64_t{c.q_dim()} + 2 * uint64_t{c.kv_dim()} + 2 * uint64_t{c.ffn};
  return Bytes{4 * rows * floats + 8 * rows * widest + 65536};
}

uint32_t KvTokensPerSlot(const PlanLimits& limits) {
  uint32_t tokens = std::max(limits.context / std::max(limits.max_sequences, 1u), 1u);
  return (tokens + kKvPageTokens - 1) / kKvPageTokens * kKvPageTokens;
}

uint32_t ShardRows(uint32_t rows, uint32_t shard, uint32_t shards) {
  uint64_t n = rows;
  return static_cast<uint32_t>(n * (shard + 1) / shards - n * shard / shards);
}

Bytes ValueBytes(const BlockGraph& graph, const ValueInfo& value, uint32_t rows, uint32_t sampled) {
  uint64_t width = graph.config.hidden;
  if (value.meaning == Meaning::kLogits) width = graph.at(value.block).ElemCount(value.units);
  bool sampled_only = value.meaning == Meaning::kLogits ||
                      (value.meaning == Meaning::kN && value.block == graph.head());
  uint64_t n = ShardRows(sampled_only ? sampled : rows, value.shard, value.shards);
  return Bytes{4 * width * n};
}

MemoryTable MemoryNeeds(const Plan& plan, const std::vector<ProgramInfo>& programs,
                        const BlockGraph& graph, const Rig& rig, const PlanLimits& limits) {
  return Needs(plan, programs, graph, rig, limits).Table();
}

std::string WhatDoesNotFit(const Plan& plan, const std::vector<ProgramInfo>& programs,
                           const BlockGraph& graph, const Rig& rig, const PlanLimits& limits) {
  Needs needs(plan, programs, graph, rig, limits);
  for (const MemoryRow& row : needs.Table().rows) {
    if (row.fits()) continue;
    std::optional<BlockId> block = needs.FirstThatDoesNotFit(row);
    return fmt::format(
        "{} lacks {} bytes: it needs {} (weights {}, slots {}, kv {}, activations {}, workspace "
        "{}) "
        "and has {}; {}",
        NameOf(row.device), (row.total() - row.capacity).value, row.total().value,
        row.weights.value, row.slots.value, row.kv.value, row.activations.value,
        row.workspace.value, row.capacity.value,
        block ? fmt::format("{} is the first block that does not fit", NameOfBlock(graph, *block))
              : "its slots, activations and workspace alone are too much");
  }
  return "";
}

}  // namespace tandem
