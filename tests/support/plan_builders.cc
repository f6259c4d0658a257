#include "tests/support/plan_builders.h"

#include <numeric>
#include <utility>

namespace tandem::testing {
namespace {

using Value = PlanWriter::Value;

constexpr ProgramKind kBoth[] = {ProgramKind::kPrefill, ProgramKind::kDecode};

Block TinyBlock(BlockKind kind, uint32_t layer, uint32_t elems, uint32_t per_unit,
                uint32_t floats_per_elem, uint32_t hidden) {
  Block block;
  block.kind = kind;
  block.layer = LayerIndex{layer};
  block.elems = elems;
  block.elems_per_unit = per_unit;
  block.units = (elems + per_unit - 1) / per_unit;
  block.sums = kind != BlockKind::kHead;
  block.bytes_per_elem = Bytes{4 * floats_per_elem};
  block.params_per_elem = floats_per_elem;
  if (kind != BlockKind::kEmbed) block.norm_bytes = Bytes{4 * hidden};
  return block;
}

uint32_t DevicesOf(const std::vector<double>& shares) {
  return static_cast<uint32_t>(shares.size());
}

DeviceId Device(uint32_t d) { return DeviceId{static_cast<int32_t>(d)}; }

}  // namespace

BlockGraph TinyGraph(const TinyShape& s) {
  BlockGraph graph;
  ModelConfig& c = graph.config;
  c.n_layers = s.layers;
  c.hidden = s.hidden;
  c.n_heads = c.n_kv_heads = s.kv_heads;
  c.head_dim = c.rope_dim = s.head_dim;
  c.ffn = s.ffn;
  c.vocab = s.vocab;
  c.context = 64;
  c.tied_embedding = graph.tied = s.tied;
  auto add = [&](BlockKind kind, uint32_t layer, uint32_t elems, uint32_t per_unit,
                 uint32_t floats) {
    graph.blocks.push_back(TinyBlock(kind, layer, elems, per_unit, floats, s.hidden));
  };
  add(BlockKind::kEmbed, 0, s.vocab, s.vocab_per_unit, s.hidden);
  for (uint32_t l = 0; l < s.layers; ++l) {
    add(BlockKind::kAttention, l, s.kv_heads, 1, 4 * s.head_dim * s.hidden);
    graph.blocks.back().kv_bytes_per_elem_token = Bytes{4 * s.head_dim};
    add(BlockKind::kMlp, l, s.ffn, s.ffn_per_unit, 3 * s.hidden);
  }
  add(BlockKind::kHead, 0, s.vocab, s.vocab_per_unit, s.hidden);
  return graph;
}

Rig TestRig(uint32_t devices) {
  Rig rig = ThisMachineRig(devices);
  for (DeviceSpec& device : rig.devices) device.memory = Bytes{0};
  rig.host_memory = Bytes{0};
  return rig;
}

PlanWriter::PlanWriter(const BlockGraph& graph, std::string name, uint32_t devices, uint32_t lanes)
    : graph_(graph) {
  plan_.plugin = std::move(name);
  plan_.plugin_version = "0.0.0";
  plan_.n_devices = devices;
  plan_.n_lanes = lanes;
}

void PlanWriter::Place(uint32_t block, UnitRange units, DeviceId device) {
  if (!units.empty()) plan_.places.push_back({BlockId{block}, units, device});
}

void PlanWriter::PlaceAll(DeviceId device) {
  for (uint32_t b = 0; b < graph_.size(); ++b) Place(b, All(b), device);
}

SlotId PlanWriter::AddSlot(uint32_t device, Bytes bytes) {
  plan_.slots.push_back({Device(device), bytes});
  return static_cast<SlotId>(plan_.slots.size() - 1);
}

void PlanWriter::Begin(ProgramKind kind, uint32_t lane, uint32_t microbatches,
                       MicrobatchKind microbatch_kind) {
  Program program;
  program.kind = kind;
  program.lane = lane;
  program.microbatches = microbatches;
  program.microbatch_kind = microbatch_kind;
  plan_.programs.push_back(std::move(program));
  next_ = 0;
}

Op& PlanWriter::Append(OpKind kind, std::vector<DeviceId> devices, uint32_t microbatch) {
  Op& op = plan_.programs.back().ops.emplace_back();
  op.kind = kind;
  op.devices = std::move(devices);
  op.microbatch = microbatch;
  op.plugin_call = 0;
  return op;
}

Value PlanWriter::Give(Op& op, uint32_t device) {
  op.out.push_back(next_);
  return {next_++, device, op.microbatch};
}

Value PlanWriter::Embed(UnitRange units, uint32_t device, uint32_t microbatch) {
  Op& op = Append(OpKind::kRun, {Device(device)}, microbatch);
  op.units = units;
  return Give(op, device);
}

Value PlanWriter::Norm(uint32_t block, Value x) {
  Op& op = Append(OpKind::kNorm, {Device(x.device)}, x.microbatch);
  op.block = BlockId{block};
  op.in = {x.id};
  return Give(op, x.device);
}

Value PlanWriter::Run(uint32_t block, UnitRange units, Value n) {
  Op& op = Append(OpKind::kRun, {Device(n.device)}, n.microbatch);
  op.block = BlockId{block};
  op.units = units;
  op.in = {n.id};
  return Give(op, n.device);
}

Value PlanWriter::Add(uint32_t block, Value x, Value y) {
  Op& op = Append(OpKind::kAdd, {Device(x.device)}, x.microbatch);
  op.block = BlockId{block};
  op.in = {x.id, y.id};
  return Give(op, x.device);
}

void PlanWriter::Sample(Value logits) {
  Append(OpKind::kSample, {Device(logits.device)}, logits.microbatch).in = {logits.id};
}

std::vector<Value> PlanWriter::Collective(OpKind kind, const std::vector<Value>& parts,
                                          Algorithm algorithm) {
  Op& op = Append(kind, {}, parts[0].microbatch);
  op.algorithm = algorithm;
  for (const Value& part : parts) {
    op.devices.push_back(Device(part.device));
    op.in.push_back(part.id);
  }
  std::vector<Value> out;
  for (const Value& part : parts) out.push_back(Give(op, part.device));
  return out;
}

std::vector<Value> PlanWriter::AllReduce(const std::vector<Value>& parts, Algorithm algorithm) {
  return Collective(OpKind::kAllReduce, parts, algorithm);
}
std::vector<Value> PlanWriter::ReduceScatter(const std::vector<Value>& parts) {
  return Collective(OpKind::kReduceScatter, parts, Algorithm::kNone);
}
std::vector<Value> PlanWriter::AllGather(const std::vector<Value>& parts) {
  return Collective(OpKind::kAllGather, parts, Algorithm::kNone);
}

Value PlanWriter::Transfer(Value value, uint32_t to) {
  Op& op = Append(OpKind::kTransfer, {Device(value.device), Device(to)}, value.microbatch);
  op.in = {value.id};
  return Give(op, to);
}

void PlanWriter::Fetch(uint32_t block, UnitRange units, DeviceId from, SlotId slot) {
  Op& op = Append(OpKind::kFetch, {from, plan_.slots[slot].device}, 0);
  op.block = BlockId{block};
  op.units = units;
  op.slot = slot;
}

void PlanWriter::KvMove(uint32_t block, UnitRange units, uint32_t microbatch, uint32_t from,
                        uint32_t to) {
  Op& op = Append(OpKind::kKvMove, {Device(from), Device(to)}, microbatch);
  op.block = BlockId{block};
  op.units = units;
}

Value PlanWriter::Whole(uint32_t block, Value x) {
  return Add(block, x, Run(block, All(block), Norm(block, x)));
}

void PlanWriter::Chain(uint32_t device, uint32_t microbatch) {
  Value x = Embed(All(0), device, microbatch);
  for (uint32_t b = 1; b < head(); ++b) x = Whole(b, x);
  Sample(Run(head(), All(head()), Norm(head(), x)));
}

std::vector<UnitRange> CutByShares(uint32_t units, const std::vector<double>& shares) {
  double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  std::vector<UnitRange> cut;
  double before = 0;
  uint32_t begin = 0;
  for (size_t d = 0; d < shares.size(); ++d) {
    before += shares[d];
    auto end = d + 1 == shares.size() ? units : static_cast<uint32_t>(units * before / sum);
    cut.push_back({begin, end});
    begin = end;
  }
  return cut;
}

Plan SinglePlan(const BlockGraph& graph) {
  PlanWriter w(graph, "single", 1);
  w.PlaceAll(DeviceId{0});
  for (ProgramKind kind : kBoth) {
    w.Begin(kind);
    w.Chain(0);
  }
  return w.Take();
}

Plan ReplicasPlan(const BlockGraph& graph, uint32_t devices) {
  PlanWriter w(graph, "replicas", devices, devices);
  for (uint32_t d = 0; d < devices; ++d) w.PlaceAll(Device(d));
  for (uint32_t d = 0; d < devices; ++d) {
    for (ProgramKind kind : kBoth) {
      w.Begin(kind, d);
      w.Chain(d);
    }
  }
  return w.Take();
}

Plan LayerSplitPlan(const BlockGraph& graph, uint32_t devices, uint32_t microbatches) {
  PlanWriter w(graph, "layer_split", devices);
  auto device_of = [&](uint32_t b) { return b * devices / graph.size(); };
  for (uint32_t b = 0; b < graph.size(); ++b) w.Place(b, w.All(b), Device(device_of(b)));
  for (ProgramKind kind : kBoth) {
    MicrobatchKind cut = microbatches == 1               ? MicrobatchKind::kNone
                         : kind == ProgramKind::kPrefill ? MicrobatchKind::kByChunk
                                                         : MicrobatchKind::kBySequence;
    w.Begin(kind, 0, microbatches, cut);
    for (uint32_t m = 0; m < microbatches; ++m) {
      Value x = w.Embed(w.All(0), 0, m);
      for (uint32_t b = 1; b < graph.size(); ++b) {
        if (device_of(b) != x.device) x = w.Transfer(x, device_of(b));
        if (b != w.head()) x = w.Whole(b, x);
      }
      w.Sample(w.Run(w.head(), w.All(w.head()), w.Norm(w.head(), x)));
    }
  }
  return w.Take();
}

Plan TensorSplitPlan(const BlockGraph& graph, const std::vector<double>& shares,
                     Algorithm algorithm) {
  uint32_t devices = DevicesOf(shares);
  PlanWriter w(graph, "tensor_split", devices);
  std::vector<std::vector<UnitRange>> part;
  for (uint32_t b = 0; b < graph.size(); ++b) {
    part.push_back(CutByShares(graph.blocks[b].units, shares));
    for (uint32_t d = 0; d < devices; ++d) w.Place(b, part[b][d], Device(d));
  }
  for (ProgramKind kind : kBoth) {
    w.Begin(kind);
    std::vector<Value> x, parts(devices);
    for (uint32_t d = 0; d < devices; ++d) x.push_back(w.Embed(part[0][d], d));
    if (devices > 1) x = w.AllReduce(x, algorithm);
    for (uint32_t b = 1; b < graph.size(); ++b) {
      for (uint32_t d = 0; d < devices; ++d) parts[d] = w.Run(b, part[b][d], w.Norm(b, x[d]));
      if (b == w.head()) break;
      std::vector<Value> y = devices > 1 ? w.AllReduce(parts, algorithm) : parts;
      for (uint32_t d = 0; d < devices; ++d) x[d] = w.Add(b, x[d], y[d]);
    }
    w.Sample(devices > 1 ? w.AllGather(parts)[0] : parts[0]);
  }
  return w.Take();
}

Plan OffloadPlan(const BlockGraph& graph) {
  PlanWriter w(graph, "offload", 1);
  w.PlaceAll(kHost);
  Bytes largest;
  for (const Block& block : graph.blocks) {
    largest = std::max(largest, block.UnitBytes(block.AllUnits()));
  }
  SlotId slots[2] = {w.AddSlot(0, largest), w.AddSlot(0, largest)};
  for (ProgramKind kind : kBoth) {
    w.Begin(kind);
    w.Fetch(0, w.All(0), kHost, slots[0]);
    Value x;
    for (uint32_t b = 0; b < graph.size(); ++b) {
      if (b != w.head()) w.Fetch(b + 1, w.All(b + 1), kHost, slots[(b + 1) % 2]);
      if (b == 0) {
        x = w.Embed(w.All(0), 0);
      } else if (b != w.head()) {
        x = w.Whole(b, x);
      } else {
        w.Sample(w.Run(b, w.All(b), w.Norm(b, x)));
      }
    }
  }
  return w.Take();
}

Plan SequenceParallelPlan(const BlockGraph& graph, const std::vector<double>& shares) {
  uint32_t devices = DevicesOf(shares);
  PlanWriter w(graph, "sequence_parallel", devices);
  std::vector<std::vector<UnitRange>> part;
  for (uint32_t b = 0; b < graph.size(); ++b) {
    part.push_back(CutByShares(graph.blocks[b].units, shares));
    for (uint32_t d = 0; d < devices; ++d) w.Place(b, part[b][d], Device(d));
  }
  for (ProgramKind kind : kBoth) {
    w.Begin(kind);
    std::vector<Value> x, n(devices), parts(devices);
    for (uint32_t d = 0; d < devices; ++d) x.push_back(w.Embed(part[0][d], d));
    x = w.ReduceScatter(x);
    for (uint32_t b = 1; b < w.head(); ++b) {
      for (uint32_t d = 0; d < devices; ++d) n[d] = w.Norm(b, x[d]);
      n = w.AllGather(n);
      for (uint32_t d = 0; d < devices; ++d) parts[d] = w.Run(b, part[b][d], n[d]);
      std::vector<Value> y = w.ReduceScatter(parts);
      for (uint32_t d = 0; d < devices; ++d) x[d] = w.Add(b, x[d], y[d]);
    }
    x = w.AllGather(x);
    for (uint32_t d = 0; d < devices; ++d) {
      parts[d] = w.Run(w.head(), part[w.head()][d], w.Norm(w.head(), x[d]));
    }
    w.Sample(w.AllGather(parts)[0]);
  }
  return w.Take();
}

Plan WeightGatherPlan(const BlockGraph& graph, uint32_t devices) {
  PlanWriter w(graph, "weight_gather", devices);
  std::vector<double> shares(devices, 1.0);
  std::vector<std::vector<UnitRange>> part;
  Bytes largest;
  for (uint32_t b = 0; b < graph.size(); ++b) {
    part.push_back(CutByShares(graph.blocks[b].units, shares));
    for (uint32_t d = 0; d < devices; ++d) {
      w.Place(b, part[b][d], Device(d));
      largest = std::max(largest, graph.blocks[b].UnitBytes(part[b][d]));
    }
  }
  // slots[d][parity][peer]: what peer holds of an even or an odd block.
  std::vector<std::vector<SlotId>> slots(size_t{2} * devices, std::vector<SlotId>(devices));
  for (uint32_t i = 0; i < 2 * devices; ++i) {
    for (uint32_t peer = 0; peer < devices; ++peer) {
      if (peer != i / 2) slots[i][peer] = w.AddSlot(i / 2, largest);
    }
  }
  auto gather = [&](uint32_t b) {
    for (uint32_t d = 0; d < devices; ++d) {
      for (uint32_t peer = 0; peer < devices; ++peer) {
        if (peer == d || part[b][peer].empty()) continue;
        w.Fetch(b, part[b][peer], Device(peer), slots[2 * d + b % 2][peer]);
      }
    }
  };
  for (ProgramKind kind : kBoth) {
    w.Begin(kind, 0, devices, devices == 1 ? MicrobatchKind::kNone : MicrobatchKind::kBySequence);
    gather(0);
    std::vector<Value> x;
    for (uint32_t b = 0; b < graph.size(); ++b) {
      if (b != w.head()) gather(b + 1);
      for (uint32_t d = 0; d < devices; ++d) {
        if (b == 0) {
          x.push_back(w.Embed(w.All(0), d, d));
        } else if (b != w.head()) {
          x[d] = w.Whole(b, x[d]);
        } else {
          w.Sample(w.Run(b, w.All(b), w.Norm(b, x[d])));
        }
      }
    }
  }
  return w.Take();
}

Plan DisaggregatePlan(const BlockGraph& graph) {
  PlanWriter w(graph, "disaggregate", 2);
  w.PlaceAll(DeviceId{0});
  w.PlaceAll(DeviceId{1});
  w.Begin(ProgramKind::kPrefill);
  Value x = w.Embed(w.All(0), 0);
  for (uint32_t b = 1; b < w.head(); ++b) {
    x = w.Whole(b, x);
    if (graph.blocks[b].kind == BlockKind::kAttention) w.KvMove(b, w.All(b), 0, 0, 1);
  }
  w.Sample(w.Run(w.head(), w.All(w.head()), w.Norm(w.head(), x)));
  w.Begin(ProgramKind::kDecode);
  w.Chain(1);
  return w.Take();
}

Plan ReplicatedAttentionPlan(const BlockGraph& graph, uint32_t devices, uint32_t microbatches) {
  PlanWriter w(graph, "replicated_attention", devices);
  std::vector<double> shares(devices, 1.0);
  auto split = [&](uint32_t b) { return graph.blocks[b].kind == BlockKind::kMlp && devices > 1; };
  auto units = [&](uint32_t b, uint32_t d) {
    return split(b) ? CutByShares(graph.blocks[b].units, shares)[d] : w.All(b);
  };
  for (uint32_t b = 0; b < graph.size(); ++b) {
    for (uint32_t d = 0; d < devices; ++d) w.Place(b, units(b, d), Device(d));
  }
  for (ProgramKind kind : kBoth) {
    w.Begin(kind, 0, microbatches,
            microbatches == 1 ? MicrobatchKind::kNone : MicrobatchKind::kByChunk);
    for (uint32_t m = 0; m < microbatches; ++m) {
      std::vector<Value> x, y(devices);
      for (uint32_t d = 0; d < devices; ++d) x.push_back(w.Embed(w.All(0), d, m));
      for (uint32_t b = 1; b < w.head(); ++b) {
        for (uint32_t d = 0; d < devices; ++d) y[d] = w.Run(b, units(b, d), w.Norm(b, x[d]));
        if (split(b)) y = w.AllReduce(y, Algorithm::kTwoShot);
        for (uint32_t d = 0; d < devices; ++d) x[d] = w.Add(b, x[d], y[d]);
      }
      w.Sample(w.Run(w.head(), w.All(w.head()), w.Norm(w.head(), x[m % devices])));
    }
  }
  return w.Take();
}

}  // namespace tandem::testing
