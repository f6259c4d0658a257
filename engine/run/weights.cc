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
      const uint64_t c0 = uint64_t{begin} * block.columns;
      const uint64_t c1 = uint64_t{end} * block.columns;
      return {{&layer.w_gate, {c0, c1, 0, hidden}},
              {&layer.w_up, {c0, c1, 0, hidden}},
              {&layer.w_down, {0, hidden, c0, c1}}};
    }
    case BlockKind::kMoe:
      break;
  }
  Fail(ErrorCode::kUnsupported,
       fmt::format("engine: blocks of kind {} cannot be run (want EMBED, ATTENTION, MLP or HEAD)",
                   ToString(block.kind)));
}

std::vector<BiasPart> BiasesOf(const Model& model, BlockId id, uint32_t begin, uint32_t end) {
  const BlockGraph& graph = model.blocks();
  const Block& block = graph.at(id);
  if (block.kind != BlockKind::kAttention || !graph.config.attention_bias) return {};
  const LayerWeights& layer = model.layers()[block.layer.value];
  const uint64_t kv0 = uint64_t{begin} * graph.config.head_dim;
  const uint64_t kv1 = uint64_t{end} * graph.config.head_dim;
  const uint64_t group = graph.config.group();
  return {{&layer.bq, kv0 * group, kv1 * group}, {&layer.bk, kv0, kv1}, {&layer.bv, kv0, kv1}};
}

namespace {

DeviceId FetcherFromHost(const Plan& plan) {
  for (const Op* fetch : FetchesOf(plan)) {
    if (fetch->devices[0].IsHost()) return fetch->devices[1];
  }
  return DeviceId{0};
}

}  // namespace

WeightStore::WeightStore(const Model& model, const Plan& plan, Backend& backend,
                         Bytes host_workspace)
    : model_(model),
      graph_(model.blocks()),
      backend_(backend),
      host_(backend, host_workspace),
      fetcher_(FetcherFromHost(plan)) {
  for (const WeightShard& shard : ShardsOf(plan, graph_)) PackShard(shard);
  PrepareSlots(plan);
  CopyNorms(plan);
}

Device& WeightStore::DeviceOf(DeviceId id) const {
  return id.IsHost() ? backend_.host() : *backend_.devices()[static_cast<size_t>(id.value)];
}

BlockShard WeightStore::Shape(DeviceId device, BlockId block, uint32_t begin, uint32_t end) const {
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
    matrix.bytes = OpsOf(device).PackedBytes(part.tensor->type, part.slice);
    shard.bytes += Aligned(matrix.bytes);
    shard.stored_bytes += StoredBytes(part);
  }
  for (const BiasPart& part : BiasesOf(model_, block, begin, end)) {
    shard.biases[shard.n_biases++] = part;
    shard.bytes += Aligned(part.bytes());
    shard.stored_bytes += part.bytes();
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
  for (uint32_t i = 0; i < shard.n_biases; ++i) {
    shard.biases[i].data = reinterpret_cast<float*>(data + offset);
    offset += Aligned(shard.biases[i].bytes());
  }
}

}  // namespace

void WeightStore::PackShard(const WeightShard& spec) {
  auto owned = std::make_unique<Owned>();
  owned->device = spec.device;
  owned->fetch_only = spec.fetch_only;
  owned->shard = Shape(spec.device, spec.block, spec.begin, spec.end);
  Device& device = DeviceOf(spec.device);
  const Bytes bytes{owned->shard.bytes};
  const std::string what =
      fmt::format("weights of b{} elements [{}, {})", spec.block.value, spec.begin, spec.end);
  if (spec.device.IsHost()) {
    HostWeights::Piece piece = host_.Take(bytes, what);
    owned->buffer = std::move(piece.buffer);
    owned->shard.page_locked = piece.page_locked;
  } else {
    owned->buffer = device.Allocate(MemoryUse::kWeights, bytes, what);
  }
  if (device.works_alone()) {
    std::vector<std::byte> staging(owned->shard.bytes);
    BindMemory(owned->shard, staging.data());
    Fill(owned->shard, spec.device);
    device.Upload(owned->buffer.data(), staging.data(), staging.size());
  }
  BindMemory(owned->shard, owned->buffer.data());
  if (!device.works_alone()) Fill(owned->shard, spec.device);
  packed_bytes_ += bytes;
  shards_.push_back(std::move(owned));
}

// Packs matrices and copies biases into the host's memory that the shard is bound to.
void WeightStore::Fill(const BlockShard& shard, DeviceId device) {
  const std::vector<TensorSlice> parts = SlicesOf(model_, shard.block, shard.begin, shard.end);
  for (uint32_t i = 0; i < shard.n_matrices; ++i) {
    PackedMatrix matrix = shard.matrices[i];
    OpsOf(device).Pack(*parts[i].tensor, matrix);
  }
  for (uint32_t i = 0; i < shard.n_biases; ++i) {
    const BiasPart& bias = shard.biases[i];
    Check(bias.tensor->type == DType::kF32 && bias.tensor->cols >= bias.end, "biases are f32");
    std::memcpy(bias.data, bias.tensor->data + bias.begin * sizeof(float), bias.bytes());
  }
}

void WeightStore::PrepareSlots(const Plan& plan) {
  // Slots first take the room that the plan gives them, or what the packed form of the largest
  // fetch needs where padding makes it more.
  std::vector<uint64_t> room(plan.slots.size());
  for (size_t i = 0; i < plan.slots.size(); ++i) room[i] = plan.slots[i].bytes.value;
  for (const Op* fetch : FetchesOf(plan)) {
    const Block& block = graph_.at(fetch->block);
    const BlockShard packed =
        Shape(plan.slots[*fetch->slot].device, WeightsOf(graph_, fetch->block),
              block.ElemBegin(fetch->units), block.ElemEnd(fetch->units));
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
    view->shard = Shape(plan.slots[*fetch->slot].device, WeightsOf(graph_, fetch->block),
                        block.ElemBegin(fetch->units), block.ElemEnd(fetch->units));
    BindMemory(view->shard, slot_buffers_[*fetch->slot].data());
    slot_views_.push_back(std::move(view));
  }
}

namespace {

const TensorView& InputNorm(const Model& model, const Block& block) {
  if (block.kind == BlockKind::kHead) return model.output_norm();
  const LayerWeights& layer = model.layers()[block.layer.value];
  return block.kind == BlockKind::kAttention ? layer.attn_norm : layer.ffn_norm;
}

bool HasHeadNorms(const BlockGraph& graph, BlockId id) {
  return graph.config.qk_norm && graph.at(id).kind == BlockKind::kAttention;
}

}  // namespace

void WeightStore::CopyNorms(const Plan& plan) {
  std::set<std::pair<DeviceId, BlockId>> applied, run;
  for (const Program& program : plan.programs) {
    for (const Op& op : program.ops) {
      if (op.kind == OpKind::kNorm) applied.insert({op.devices[0], op.block});
      if (op.kind == OpKind::kRun && HasHeadNorms(graph_, op.block)) {
        run.insert({op.devices[0], op.block});
      }
    }
  }
  for (const auto& [device, id] : applied) {
    const TensorView& norm = InputNorm(model_, graph_.at(id));
    Check(norm.cols == graph_.config.hidden, "a norm is as wide as the model");
    CopyNorm(device, id, norm);
  }
  for (const auto& [device, id] : run) {
    const LayerWeights& layer = model_.layers()[graph_.at(id).layer.value];
    for (const TensorView* norm : {&layer.q_norm, &layer.k_norm}) {
      Check(norm->cols == graph_.config.head_dim, "a head's norm is as wide as the head");
      CopyNorm(device, id, *norm);
    }
  }
}

void WeightStore::CopyNorm(DeviceId device, BlockId block, const TensorView& norm) {
  Check(norm.type == DType::kF32 && norm.data != nullptr, "norm vectors are f32");
  Device& on = DeviceOf(device);
  Buffer buffer = on.Allocate(MemoryUse::kWeights, Bytes{norm.bytes()}, "norm");
  on.Upload(buffer.data(), norm.data, norm.bytes());
  norms_.push_back(NormCopy{device, block, &norm, std::move(buffer)});
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

const float* WeightStore::FindNorm(DeviceId device, BlockId block, const TensorView& norm) const {
  for (const NormCopy& copy : norms_) {
    if (copy.device == device && copy.block == block && copy.tensor == &norm) {
      return copy.buffer.as<float>();
    }
  }
  return nullptr;
}

const float* WeightStore::Norm(DeviceId device, BlockId block) const {
  return FindNorm(device, block, InputNorm(model_, graph_.at(block)));
}

HeadNorms WeightStore::NormsOfHeads(DeviceId device, BlockId block) const {
  if (!HasHeadNorms(graph_, block)) return {};
  const LayerWeights& layer = model_.layers()[graph_.at(block).layer.value];
  return {FindNorm(device, block, layer.q_norm), FindNorm(device, block, layer.k_norm)};
}

}  // namespace tandem
