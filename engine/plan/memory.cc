// What a plan needs of each memory. See memory.h for what each column holds.
#include "engine/plan/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "engine/base/human_bytes.h"
#include "engine/plan/shards.h"
#include "engine/plan/value_layout.h"
#include "engine/plan/verifier_internal.h"

namespace tandem {
namespace {

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
    AddLinks();
    AddSelfTests();
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
    Bytes used = row.slots + row.activations + row.workspace + row.links;
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

  // Rows of a tied table count as EMBED's where a device has any of it, else as HEAD's.
  void AddWeights() {
    std::vector<bool> embeds(plan_.n_devices + 1);
    for (const Place& place : plan_.places) {
      if (place.block.value == 0) embeds[static_cast<size_t>(place.device.value + 1)] = true;
    }
    for (const WeightShard& shard : ShardsOf(plan_, graph_)) {
      const bool as_head = graph_.tied && shard.block.value == 0 &&
                           !embeds[static_cast<size_t>(shard.device.value + 1)];
      const BlockId block = as_head ? graph_.head() : shard.block;
      weights_[Cell(shard.device, block)] +=
          uint64_t{shard.end - shard.begin} * graph_.at(block).bytes_per_elem.value;
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

  void AddKv(uint32_t lane) {
    std::vector<std::vector<bool>> homes(kv_.size());  // [cell][unit]
    for (ProgramKind kind : {ProgramKind::kPrefill, ProgramKind::kDecode}) {
      for (const Op& op : plan_.program(kind, lane).ops) {
        const bool attends =
            op.kind == OpKind::kRun && graph_.at(op.block).kind == BlockKind::kAttention;
        if (!attends && op.kind != OpKind::kKvMove) continue;
        for (DeviceId device : op.devices) {
          auto& home = homes[Cell(device, op.block)];
          home.resize(graph_.at(op.block).units);
          for (uint32_t u = op.units.begin; u < op.units.end; ++u) home[u] = true;
        }
      }
    }
    const uint64_t tokens = uint64_t{limits_.max_sequences} * KvTokensPerSlot(limits_);
    for (size_t cell = 0; cell < homes.size(); ++cell) {
      const Block& block = graph_.blocks[cell % graph_.size()];
      for (uint32_t u = 0; u < homes[cell].size(); ++u) {
        if (homes[cell][u]) kv_[cell] += tokens * block.KvBytesPerToken({u, u + 1}).value;
      }
    }
  }

  // Steps of one lane follow each other, those of different lanes may be under way at once.
  void AddActivations() {
    std::vector<uint64_t> lanes(size_t{plan_.n_lanes} * plan_.n_devices);
    for (size_t p = 0; p < plan_.programs.size(); ++p) {
      const Program& program = plan_.programs[p];
      const ValueLayout layout =
          LargestLayout(programs_[p], graph_, LargestShapes(program, limits_), plan_.n_devices);
      for (uint32_t d = 0; d < plan_.n_devices; ++d) {
        uint64_t& most = lanes[program.lane * plan_.n_devices + d];
        most = std::max(most, layout.peak[d]);
      }
    }
    for (size_t i = 0; i < lanes.size(); ++i) {
      rows_[1 + i % plan_.n_devices].activations += Bytes{lanes[i]};
    }
  }

  void AddWorkspace() {
    const uint32_t most = std::max(limits_.max_step_tokens, limits_.max_sequences);
    const Bytes scratch = WorkspaceBytes(graph_, most);
    for (uint32_t d = 0; d < plan_.n_devices; ++d) rows_[1 + d].workspace = Bytes{kSmallWorkspace};
    Bytes on_host{most * sizeof(int32_t)};
    if (!rig_.gpus.empty()) {
      // Logits cross to be sampled.
      on_host += Bytes{uint64_t{limits_.max_sequences} * graph_.config.vocab * sizeof(float)};
      on_host += Bytes{kFetchRingBytes} * FetchersFromHost();
    }
    rows_[0].workspace = on_host;
    for (const Program& program : plan_.programs) {
      for (const Op& op : program.ops) {
        if (op.kind == OpKind::kRun) RowOf(op.devices[0]).workspace = scratch;
      }
    }
    AddPacking();
  }

  // Every path between devices that an op takes has a transport, over all cards.
  void AddLinks() {
    std::set<PathKind> paths;
    for (const Program& program : plan_.programs) {
      for (const Op& op : program.ops) {
        const bool between =
            IsMovement(op.kind) && std::none_of(op.devices.begin(), op.devices.end(),
                                                [&](DeviceId d) { return rig_.OnHost(d); });
        if (between) paths.insert(rig_.ResolvePath(op.path));
      }
    }
    uint32_t cards = 0;
    for (uint32_t d = 0; d < plan_.n_devices; ++d) cards += OnCard(d) ? 1 : 0;
    for (PathKind path : paths) {
      if (rig_.gpus.empty()) {
        // The CPU's has one buffer for all directions.
        if (path == PathKind::kHostStaged) rows_[0].links += Bytes{kHostStagingBytes};
        continue;
      }
      const LinkMemory memory = LinkMemoryOf(path, cards);
      rows_[0].links += memory.host;
      for (uint32_t d = 0; d < plan_.n_devices; ++d) {
        if (OnCard(d)) rows_[1 + d].links += memory.card;
      }
      if (path == PathKind::kP2p) least_ = std::max(least_, memory.card + Bytes{kPeerProbe});
    }
  }

  // Transports are tested before anything else is there.
  void AddSelfTests() {
    std::vector<bool> moves(rows_.size());
    for (const Program& program : plan_.programs) {
      for (const Op& op : program.ops) {
        if (!IsMovement(op.kind)) continue;
        for (DeviceId device : op.devices) moves[static_cast<size_t>(device.value + 1)] = true;
      }
    }
    for (size_t i = 0; i < rows_.size(); ++i) {
      const Bytes least = i == 0 ? Bytes{kSelfTestBytes} : least_;
      const Bytes total = rows_[i].total();
      if (moves[i] && total < least) rows_[i].workspace += least - total;
    }
  }

  bool OnCard(uint32_t device) const {
    return !rig_.OnHost(DeviceId{static_cast<int32_t>(device)});
  }

  // How many devices fetch from the host.
  uint64_t FetchersFromHost() const {
    std::vector<bool> fetches(plan_.n_devices);
    for (const Op* op : FetchesOf(plan_)) {
      if (op->devices[0].IsHost()) fetches[static_cast<size_t>(op->devices[1].value)] = true;
    }
    return static_cast<uint64_t>(std::count(fetches.begin(), fetches.end(), true));
  }

  // Padding that packed weights take beyond what the columns `weights` and `slots` say.
  void AddPacking() {
    for (const WeightShard& shard : ShardsOf(plan_, graph_)) {
      RowOf(shard.device).workspace += PackingBytes(graph_, shard.block, shard.begin, shard.end);
    }
    std::vector<Bytes> room(plan_.slots.size());  // of the largest fetch into each slot, packed
    for (const Op* fetch : FetchesOf(plan_)) {
      const Block& block = graph_.at(fetch->block);
      const Bytes packed = block.UnitBytes(fetch->units) +
                           PackingBytes(graph_, fetch->block, block.ElemBegin(fetch->units),
                                        block.ElemEnd(fetch->units));
      room[*fetch->slot] = std::max(room[*fetch->slot], packed);
    }
    for (size_t i = 0; i < room.size(); ++i) {
      const Slot& slot = plan_.slots[i];
      if (room[i] > slot.bytes) RowOf(slot.device).workspace += room[i] - slot.bytes;
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
  Bytes least_{kSelfTestBytes};    // what testing transports takes of a device that moves anything
};

bool SampledOnly(const BlockGraph& graph, const ValueInfo& value) {
  return value.meaning == Meaning::kLogits ||
         (value.meaning == Meaning::kN && value.block == graph.head());
}

uint64_t RowBytesOf(const BlockGraph& graph, const ValueInfo& value) {
  const uint64_t width = value.meaning == Meaning::kLogits
                             ? graph.at(value.block).ElemCount(value.units)
                             : graph.config.hidden;
  return sizeof(float) * width;
}

std::string NameOfBlock(const BlockGraph& graph, BlockId id) {
  const Block& block = graph.at(id);
  bool in_layer = block.kind != BlockKind::kEmbed && block.kind != BlockKind::kHead;
  return fmt::format("b{} ({}{})", id.value, ToString(block.kind),
                     in_layer ? fmt::format(" of layer {}", block.layer.value) : "");
}

// "weights 70.6 GB, kv 671 MB": the parts that are not zero.
std::string PartsOf(const MemoryRow& row) {
  std::string text;
  for (const auto& [name, bytes] : {std::pair{"weights", row.weights},
                                    {"slots", row.slots},
                                    {"kv", row.kv},
                                    {"activations", row.activations},
                                    {"workspace", row.workspace},
                                    {"links", row.links}}) {
    if (bytes.value == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, HumanBytes(bytes));
  }
  return text;
}

}  // namespace

Bytes WorkspaceBytes(const BlockGraph& graph, uint32_t max_step_tokens) {
  const ModelConfig& c = graph.config;
  uint64_t rows = max_step_tokens;
  uint64_t widest = std::max({c.hidden, c.q_dim(), c.ffn});
  uint64_t floats = 2 * uint64_t{c.q_dim()} + 2 * uint64_t{c.kv_dim()} + 2 * uint64_t{c.ffn};
  return Bytes{4 * rows * floats + 8 * rows * widest + kSmallWorkspace};
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
  const uint32_t n = SampledOnly(graph, value) ? sampled : rows;
  return Bytes{RowBytesOf(graph, value) * ShardRows(n, value.shard, value.shards)};
}

Bytes MostValueBytes(const BlockGraph& graph, const ValueInfo& value, uint32_t rows,
                     uint32_t sampled) {
  const uint32_t n = SampledOnly(graph, value) ? sampled : rows;
  return Bytes{RowBytesOf(graph, value) * ((uint64_t{n} + value.shards - 1) / value.shards)};
}

MemoryTable MemoryNeeds(const Plan& plan, const std::vector<ProgramInfo>& programs,
                        const BlockGraph& graph, const Rig& rig, const PlanLimits& limits) {
  return Needs(plan, programs, graph, rig, limits).Table();
}

std::string ShortOfMemory(const MemoryRow& row) {
  const std::string needs = HumanBytes(row.total());
  const std::string has = HumanBytes(row.capacity);
  if (needs == has) {
    return fmt::format("{} lacks {} of {}", NameOf(row.device),
                       HumanBytes(row.total() - row.capacity), needs);
  }
  return fmt::format("{} needs {} of {}", NameOf(row.device), needs, has);
}

std::string WhatDoesNotFit(const Plan& plan, const std::vector<ProgramInfo>& programs,
                           const BlockGraph& graph, const Rig& rig, const PlanLimits& limits) {
  Needs needs(plan, programs, graph, rig, limits);
  for (const MemoryRow& row : needs.Table().rows) {
    if (row.fits()) continue;
    std::optional<BlockId> block = needs.FirstThatDoesNotFit(row);
    return fmt::format(
        "{} lacks {}: it needs {} and has {}\n  {}\n  {}", NameOf(row.device),
        HumanBytes(row.total() - row.capacity), HumanBytes(row.total()), HumanBytes(row.capacity),
        PartsOf(row),
        block ? fmt::format("{} is the first block that does not fit", NameOfBlock(graph, *block))
              : "its slots, activations, workspace and links alone are too much");
  }
  return "";
}

}  // namespace tandem
