// Closed forms over shapes; nothing here knows time except RooflineSeconds.
#include "engine/plan/cost.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "engine/base/check.h"

namespace tandem {
namespace {

constexpr double kActivationBytes = 4;  // f32
constexpr uint64_t kTokenIdBytes = 4;

// floor(total * i / parts)
uint64_t Cut(uint64_t total, uint64_t i, uint64_t parts) { return total * i / parts; }

// The part [Cut(k), Cut(k+1)) of `total`.
uint64_t PartSize(uint64_t total, uint64_t k, uint64_t parts) {
  return Cut(total, k + 1, parts) - Cut(total, k, parts);
}

bool SeesSampledRowsOnly(const BlockGraph& graph, Meaning meaning, BlockId block) {
  return meaning == Meaning::kLogits || (meaning == Meaning::kN && block == graph.head());
}

const ValueInfo& ValueOf(const ProgramInfo& info, ValueId id) {
  Check(id < info.values.size(), "cost: a value the program does not have");
  return info.values[id];
}

// Collects the hops of one op.
class HopList {
 public:
  HopList(const Rig& rig, PathKind requested) : rig_(rig), requested_(requested) {}

  // Between two devices, or a device and the host.
  void Add(DeviceId src, DeviceId dst, Bytes bytes) {
    if (bytes.value == 0) return;
    const PathKind path = rig_.HopPath(src, dst, requested_);
    if (rig_.OnHost(src) || rig_.OnHost(dst)) {
      hops_.push_back(Hop{src, dst, path, bytes});
      return;
    }
    if (path == PathKind::kHostStaged) {
      hops_.push_back(Hop{src, kHost, path, bytes});
      hops_.push_back(Hop{kHost, dst, path, bytes});
      return;
    }
    hops_.push_back(Hop{src, dst, path, bytes});
  }

  // Every ordered pair of ranks (i, j), i first: bytes_of(i, j).
  template <typename BytesOf>
  void AddPairs(const std::vector<DeviceId>& ranks, const BytesOf& bytes_of) {
    for (size_t i = 0; i < ranks.size(); ++i) {
      for (size_t j = 0; j < ranks.size(); ++j) {
        if (i != j) Add(ranks[i], ranks[j], bytes_of(i, j));
      }
    }
  }

  std::vector<Hop> Take() { return std::move(hops_); }

 private:
  const Rig& rig_;
  PathKind requested_;
  std::vector<Hop> hops_;
};

void AddAllReduce(HopList& hops, const Op& op, WireType wire, uint64_t elements) {
  uint64_t ranks = op.devices.size();
  if (op.algorithm != Algorithm::kTwoShot) {
    hops.AddPairs(op.devices, [&](size_t, size_t) { return WireBytes(wire, elements); });
    return;
  }
  auto shard = [&](size_t k) { return WireBytes(wire, PartSize(elements, k, ranks)); };
  hops.AddPairs(op.devices, [&](size_t, size_t j) { return shard(j); });
  hops.AddPairs(op.devices, [&](size_t i, size_t) { return shard(i); });
}

// Positions that `rows` rows look at: at most a window each. An upper bound for prompts that begin
// within the window, exact for decoding beyond it.
double WithinWindow(const BlockGraph& graph, uint64_t positions, double rows) {
  const double window = graph.config.sliding_window;
  const auto all = static_cast<double>(positions);
  return window > 0 ? std::min(all, rows * window) : all;
}

OpCost RunCost(const BlockGraph& graph, const Op& op, const MicrobatchShape& shape) {
  const Block& block = graph.at(op.block);
  const double hidden = graph.config.hidden;
  const double rows = shape.rows;
  const double elems = block.ElemCount(op.units);
  const double weights = static_cast<double>(block.UnitBytes(op.units).value);
  const double products = 2.0 * static_cast<double>(block.params_per_elem) * elems;
  OpCost cost;
  switch (block.kind) {
    case BlockKind::kEmbed: {
      double share = elems / block.elems;
      cost.memory_bytes = rows * share * static_cast<double>(block.bytes_per_elem.value) +
                          rows * hidden * kActivationBytes;
      return cost;
    }
    case BlockKind::kAttention: {
      double kv_per_token = static_cast<double>(block.KvBytesPerToken(op.units).value);
      cost.attention_flops = 4.0 * graph.config.group() * graph.config.head_dim * elems *
                             WithinWindow(graph, shape.attended, rows);
      cost.kv_bytes = kv_per_token * (WithinWindow(graph, shape.kv_tokens, rows) + rows);
      cost.flops = products * rows + cost.attention_flops;
      cost.memory_bytes = weights + static_cast<double>(block.head_norm_bytes.value) +
                          2 * rows * hidden * kActivationBytes + cost.kv_bytes;
      return cost;
    }
    case BlockKind::kMlp:
    case BlockKind::kMoe:
      cost.flops = products * rows;
      cost.memory_bytes = weights + 2 * rows * hidden * kActivationBytes;
      return cost;
    case BlockKind::kHead:
      if (shape.sampled == 0) return cost;
      cost.flops = products * shape.sampled;
      cost.memory_bytes = weights + shape.sampled * (hidden + elems) * kActivationBytes;
      return cost;
  }
  return cost;
}

}  // namespace

uint32_t StepShape::rows() const {
  uint32_t sum = 0;
  for (const MicrobatchShape& shape : microbatches) sum += shape.rows;
  return sum;
}

uint32_t StepShape::sampled() const {
  uint32_t sum = 0;
  for (const MicrobatchShape& shape : microbatches) sum += shape.sampled;
  return sum;
}

MicrobatchShape ShapeFor(const Op& op, const StepShape& shape) {
  if (op.kind != OpKind::kFetch) {
    Check(op.microbatch < shape.microbatches.size(), "cost: a microbatch the step does not have");
    return shape.microbatches[op.microbatch];
  }
  MicrobatchShape sum;
  for (const MicrobatchShape& each : shape.microbatches) {
    sum.rows += each.rows;
    sum.sampled += each.sampled;
    sum.attended += each.attended;
    sum.kv_tokens += each.kv_tokens;
  }
  return sum;
}

uint64_t ValueElements(const BlockGraph& graph, const ValueInfo& value,
                       const MicrobatchShape& shape) {
  uint64_t rows =
      SeesSampledRowsOnly(graph, value.meaning, value.block) ? shape.sampled : shape.rows;
  if (value.shards > 1) rows = PartSize(rows, value.shard, value.shards);
  uint64_t width = value.meaning == Meaning::kLogits ? graph.at(value.block).ElemCount(value.units)
                                                     : graph.config.hidden;
  return rows * width;
}

bool DoesWork(const BlockGraph& graph, const Op& op, const ProgramInfo& info,
              const StepShape& step) {
  MicrobatchShape shape = ShapeFor(op, step);
  if (shape.rows == 0) return false;
  switch (op.kind) {
    case OpKind::kRun:
    case OpKind::kNorm:
      return shape.sampled > 0 || op.block != graph.head();
    case OpKind::kSample:
      return shape.sampled > 0;
    case OpKind::kTransfer:
    case OpKind::kAllGather: {
      const ValueInfo& value = ValueOf(info, op.in.front());
      return shape.sampled > 0 || !SeesSampledRowsOnly(graph, value.meaning, value.block);
    }
    default:
      return true;
  }
}

StepShape PrefillShape(const Program& program, uint32_t tokens) {
  StepShape step;
  step.microbatches.resize(std::max(program.microbatches, 1u));
  const uint64_t parts = step.microbatches.size();
  // One sequence sits in slot 0, so by sequences all of it is microbatch 0.
  const bool chunked = program.microbatch_kind != MicrobatchKind::kBySequence;
  for (uint64_t i = 0; i < parts; ++i) {
    uint64_t begin = chunked ? Cut(tokens, i, parts) : (i == 0 ? 0 : tokens);
    uint64_t end = chunked ? Cut(tokens, i + 1, parts) : tokens;
    if (begin == end) continue;
    MicrobatchShape& shape = step.microbatches[i];
    shape.rows = static_cast<uint32_t>(end - begin);
    shape.sampled = end == tokens ? 1 : 0;
    shape.attended = (end * (end + 1) - begin * (begin + 1)) / 2;
    shape.kv_tokens = end;
  }
  return step;
}

StepShape DecodeShape(const Program& program, uint32_t sequences, uint32_t context) {
  StepShape step;
  step.microbatches.resize(std::max(program.microbatches, 1u));
  const uint64_t parts = step.microbatches.size();
  const bool by_slot = program.microbatch_kind == MicrobatchKind::kBySequence;
  for (uint64_t i = 0; i < parts; ++i) {
    // Slots i, i + parts, i + 2*parts, ... below `sequences`.
    uint64_t slots = (sequences + parts - 1 - i) / parts;
    uint64_t rows = by_slot ? slots : PartSize(sequences, i, parts);
    uint64_t positions = rows * (uint64_t{context} + 1);
    step.microbatches[i] = MicrobatchShape{.rows = static_cast<uint32_t>(rows),
                                           .sampled = static_cast<uint32_t>(rows),
                                           .attended = positions,
                                           .kv_tokens = positions};
  }
  return step;
}

OpCost CostOf(const BlockGraph& graph, const Op& op, const MicrobatchShape& shape) {
  OpCost cost;
  if (shape.rows == 0) return cost;
  const double hidden = graph.config.hidden;
  const double rows = op.block == graph.head() ? shape.sampled : shape.rows;
  switch (op.kind) {
    case OpKind::kRun:
      return RunCost(graph, op, shape);
    case OpKind::kNorm:
      cost.flops = 4 * rows * hidden;
      cost.memory_bytes = 2 * rows * hidden * kActivationBytes;
      return cost;
    case OpKind::kAdd:
      cost.flops = rows * hidden;
      cost.memory_bytes = 3 * rows * hidden * kActivationBytes;
      return cost;
    case OpKind::kSample:
      cost.memory_bytes =
          static_cast<double>(shape.sampled) * graph.config.vocab * kActivationBytes;
      return cost;
    default:
      return cost;
  }
}

double RooflineSeconds(const OpCost& cost, const DeviceSpec& device) {
  return std::max(cost.flops / device.flops, cost.memory_bytes / device.memory_bytes_per_s);
}

std::vector<Hop> HopsOf(const BlockGraph& graph, const Op& op, const ProgramInfo& info,
                        const MicrobatchShape& shape, WireType wire, const Rig& rig) {
  HopList hops(rig, op.path);
  if (shape.rows == 0) return {};
  const uint64_t ranks = op.devices.size();
  const uint64_t hidden = graph.config.hidden;
  switch (op.kind) {
    case OpKind::kSample:
      hops.Add(op.devices[0], kHost, Bytes{kTokenIdBytes * shape.sampled});
      break;
    case OpKind::kTransfer:
      hops.Add(op.devices[0], op.devices[1],
               WireBytes(wire, ValueElements(graph, ValueOf(info, op.in[0]), shape)));
      break;
    case OpKind::kAllReduce:
      AddAllReduce(hops, op, wire, ValueElements(graph, ValueOf(info, op.in[0]), shape));
      break;
    case OpKind::kReduceScatter:
      hops.AddPairs(op.devices, [&](size_t, size_t j) {
        return WireBytes(wire, PartSize(shape.rows, j, ranks) * hidden);
      });
      break;
    case OpKind::kAllGather:
      hops.AddPairs(op.devices, [&](size_t i, size_t) {
        return WireBytes(wire, ValueElements(graph, ValueOf(info, op.in[i]), shape));
      });
      break;
    case OpKind::kFetch:
      hops.Add(op.devices[0], op.devices[1], graph.at(op.block).UnitBytes(op.units));
      break;
    case OpKind::kKvMove:
      hops.Add(op.devices[0], op.devices[1],
               graph.at(op.block).KvBytesPerToken(op.units) * shape.rows);
      break;
    default:
      break;
  }
  return hops.Take();
}

std::vector<TrafficRow> TrafficOf(const BlockGraph& graph, const Plan& plan, const Program& program,
                                  const ProgramInfo& info, const StepShape& shape, const Rig& rig) {
  std::map<std::tuple<DeviceId, DeviceId, PathKind>, Bytes> sums;
  for (const Op& op : program.ops) {
    for (const Hop& hop : HopsOf(graph, op, info, ShapeFor(op, shape), plan.wire, rig)) {
      sums[{hop.src, hop.dst, hop.path}] += hop.bytes;
    }
  }
  std::vector<TrafficRow> rows;
  for (const auto& [key, bytes] : sums) {
    auto [src, dst, path] = key;
    rows.push_back(TrafficRow{program.kind, src, dst, path, bytes, shape.rows()});
  }
  return rows;
}

}  // namespace tandem
