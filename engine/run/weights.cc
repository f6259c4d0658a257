#include "engine/run/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/error.h"

namespace tandem {
namespace {

constexpr uint64_t kAlign = 64;
uint64_t Aligned(uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

uint64_t StoredBytes(const TensorSlice& part) {
  return RowBytes(part.tensor->type, part.slice.cols()) * part.slice.rows();
}

}  // namespace

std::vector<TensorSlice> SlicesOf(const Model& model, BlockId id, uint32_t begin, uint32_t end) {
  const BlockGraph& graph = model.blocks();
  const Block& block = graph.at(id);
  const ModelConfig& config = graph.config;
  const uint64_t hidden = config.hidden;
  switch (block.kind) {
    case BlockKind::kEmbed:
      return {{&model.token_embedding(), {begin, end, 0, hidden}}};
    case BlockKind::kHead:
      return {{&model.output(), {begin, end, 0, hidden}}};
    case BlockKind::kAttention: {
      const LayerWeights& layer = model.layers()[block.layer.value];
      const uint64_t kv0 = uint64_t{begin} * config.head_dim;
      const uint64_t kv1 = uint64_t{end} * config.head_dim;
      const uint64_t q0 = kv0 * config.group();
      const uint64_t q1 = kv1 * config.group();
      return {{&layer.wq, {q0, q1, 0, hidden}},
              {&layer.wk, {kv0, kv1, 0, hidden}},
              {&layer.wv, {kv0, kv1, 0, hidden}},
              {&layer.wo, {0, hidden, q0, q1}}};
    }
    case BlockKind::kMlp: {
      const LayerWeights& layer = model.layers()[block.layer.value];
      return {{&layer.w_gate, {begin, end, 0, hidden}},
              {&layer.w_up, {begin, end, 0, hidden}},
              {&layer.w_down, {0, hidden, begin, end}}};
    }
    case BlockKind::kMoe:
      break;
  }
  Fail(ErrorCode::kUnsupported,
       fmt::format("engine: blocks of kind {} cannot be run (want EMBED, ATTENTION, MLP or HEAD)",
                   ToString(block.kind)));
}

WeightStore::WeightStore(const Model& model, const Plan& plan,
                         std::span<const std::unique_ptr<Device>> devices, Device& host, Ops& ops)
    : model_(model), graph_(model.blocks()), devices_(devices), host_(host), ops_(ops) {
  for (const WeightShard& shard : ShardsOf(plan, graph_)) PackShard(shard);
  PrepareSlots(plan);
  CopyNorms(plan);
}

Device& WeightStore::DeviceOf(DeviceId id) const {
  return id.IsHost() ? host_ : *devices_[static_cast<size_t>(id.value)];
}

BlockShard WeightStore::Shape(BlockId block, uint32_t begin, uint32_t end) const {
  BlockShard shard;
  shard.block = block;
  shard.begin = begin;
  shard.end = end;
  // A plan may fetch no units at all, which is nothing to hold.
  if (begin == end) return shard;
  for (const TensorSlice& part : SlicesOf(model_, block, begin, end)) {
    PackedMatrix& matrix = shard.matrices[shard.n_matrices++];
    matrix.type = part.tensor->type;
    matrix.slice = part.slice;
    matrix.bytes = ops_.PackedBytes(part.tensor->type, part.slice);
    shard.bytes += Aligned(matrix.bytes);
    shard.stored_bytes += StoredBytes(part);
  }
  return shard;
}

namespace {

void BindMemory(BlockShard& shard, std::byte* data) {
  shard.data = data;
  uint64_t offset = 0;
  for (uint32_t i = 0; i < shard.n_matrices; ++i) {
    shard.matrices[i].data = data + offset;
    offset += Aligned(shard.matrices[i].bytes);
  }
}

}  // namespace

void WeightStore::PackShard(const WeightShard& spec) {
  auto owned = std::make_unique<Owned>();
  owned->device = spec.device;
  owned->fetch_only = spec.fetch_only;
  owned->shard = Shape(spec.block, spec.begin, spec.end);
  owned->buffer = DeviceOf(spec.device)
                      .Allocate(MemoryUse::kWeights, Bytes{owned->shard.bytes},
                                fmt::format("weights of b{} elements [{}, {})", spec.block.value,
                                            spec.begin, spec.end));
  BindMemory(owned->shard, owned->buffer.data());
  const std::vector<TensorSlice> parts = SlicesOf(model_, spec.block, spec.begin, spec.end);
  for (uint32_t i = 0; i < owned->shard.n_matrices; ++i) {
    ops_.Pack(*parts[i].tensor, owned->shard.matrices[i]);
  }
  packed_bytes_ += Bytes{owned->shard.bytes};
  shards_.push_back(std::move(owned));
}

void WeightStore::PrepareSlots(const Plan& plan) {
  // Slots first take the room that the plan gives them, or what the packed form of the largest
  // fetch needs where padding makes it more.
  std::vector<uint64_t> room(plan.slots.size());
  for (size_t i = 0; i < plan.slots.size(); ++i) room[i] = plan.slots[i].bytes.value;
  for (const Op* fetch : FetchesOf(plan)) {
    const Block& block = graph_.at(fetch->block);
    const BlockShard packed = Shape(WeightsOf(graph_, fetch->block), block.ElemBegin(fetch->units),
                                    block.ElemEnd(fetch->units));
    room[*fetch->slot] = std::max(room[*fetch->slot], packed.bytes);
  }
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    slot_buffers_.push_back(
        DeviceOf(plan.slots[i].device)
            .Allocate(MemoryUse::kSlots, Bytes{room[i]}, fmt::format("s{}", i)));
  }
  for (const Op* fetch : FetchesOf(plan)) {
    if (InSlot(*fetch->slot, fetch->block, fetch->units) != nullptr) continue;
    const Block& block = graph_.at(fetch->block);
    auto view = std::make_unique<SlotView>();
    view->slot = *fetch->slot;
    view->shard = Shape(WeightsOf(graph_, fetch->block), block.ElemBegin(fetch->units),
                        block.ElemEnd(fetch->units));
    BindMemory(view->shard, slot_buffers_[*fetch->slot].data());
    slot_views_.push_back(std::move(view));
  }
}

void WeightStore::CopyNorms(const Plan& plan) {
  std::set<std::pair<DeviceId, BlockId>> wanted;
  for (const Program& program : plan.programs) {
    for (const Op& op : program.ops) {
      if (op.kind == OpKind::kNorm) wanted.insert({op.devices[0], op.block});
    }
  }
  for (const auto& [device, id] : wanted) {
    const Block& block = graph_.at(id);
    const TensorView& norm = block.kind == BlockKind::kHead ? model_.output_norm()
                             : block.kind == BlockKind::kAttention
                                 ? model_.layers()[block.layer.value].attn_norm
                                 : model_.layers()[block.layer.value].ffn_norm;
    Check(norm.type == DType::kF32 && norm.cols == graph_.config.hidden, "norm vectors are f32");
    Buffer buffer = DeviceOf(device).Allocate(MemoryUse::kWeights, Bytes{norm.bytes()}, "norm");
    std::memcpy(buffer.data(), norm.data, norm.bytes());
    norms_.push_back(NormCopy{device, id, std::move(buffer)});
  }
}

const WeightStore::Owned* WeightStore::FindExact(DeviceId device, BlockId block, uint32_t begin,
                                                 uint32_t end) const {
  for (const auto& owned : shards_) {
    const BlockShard& shard = owned->shard;
    if (owned->device == device && shard.block == block && shard.begin == begin &&
        shard.end == end) {
      return owned.get();
    }
  }
  return nullptr;
}

const BlockShard* WeightStore::Resident(DeviceId device, BlockId block, uint32_t elem) const {
  const BlockId id = WeightsOf(graph_, block);
  for (const auto& owned : shards_) {
    const BlockShard& shard = owned->shard;
    if (owned->device == device && !owned->fetch_only && shard.block == id && shard.begin <= elem &&
        elem < shard.end) {
      return &shard;
    }
  }
  return nullptr;
}

const BlockShard* WeightStore::FetchSource(DeviceId source, BlockId block, UnitRange units) const {
  const Block& b = graph_.at(block);
  const Owned* owned =
      FindExact(source, WeightsOf(graph_, block), b.ElemBegin(units), b.ElemEnd(units));
  return owned == nullptr ? nullptr : &owned->shard;
}

const BlockShard* WeightStore::InSlot(SlotId slot, BlockId block, UnitRange units) const {
  const Block& b = graph_.at(block);
  for (const auto& view : slot_views_) {
    if (view->slot == slot && view->shard.block == WeightsOf(graph_, block) &&
        view->shard.begin == b.ElemBegin(units) && view->shard.end == b.ElemEnd(units)) {
      return &view->shard;
    }
  }
  return nullptr;
}

const float* WeightStore::Norm(DeviceId device, BlockId block) const {
  for (const NormCopy& norm : norms_) {
    if (norm.device == device && norm.block == block) return norm.buffer.as<float>();
  }
  return nullptr;
}

}  // namespace tandem
