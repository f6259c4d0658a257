#include "engine/model/block_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "engine/base/check.h"
#include "engine/base/error.h"

namespace tandem {
namespace {

constexpr uint32_t kMlpUnitColumns = 32;
constexpr uint32_t kVocabUnitRows = 64;
constexpr uint64_t kKvElementBytes = 2;  // f16

uint32_t UnitsFor(uint32_t elems, uint32_t elems_per_unit) {
  return (elems + elems_per_unit - 1) / elems_per_unit;
}

// Bytes that `columns` columns of a matrix of `rows` rows take, as their share of its blocks; none
// where that is no whole number. Units end on block boundaries, so the shares of a unit's elements
// add up to whole blocks.
std::optional<uint64_t> ColumnBytes(DType type, uint64_t rows, uint64_t columns) {
  const DTypeTraits& traits = Traits(type);
  const uint64_t scaled = rows * columns * traits.block_bytes;
  if (scaled % traits.block_elems != 0) {
    return std::nullopt;
  }
  return scaled / traits.block_elems;
}

uint64_t HeadColumnBytes(DType type, uint64_t rows, uint64_t columns, LayerIndex layer) {
  const std::optional<uint64_t> bytes = ColumnBytes(type, rows, columns);
  if (!bytes) {
    const DTypeTraits& traits = Traits(type);
    Fail(ErrorCode::kUnsupported,
         fmt::format("block graph: layer {}: attention output of type {} with {} rows cannot be "
                     "shared out by heads of {} columns in whole bytes (want a hidden width that "
                     "is a multiple of {}, or a plain type)",
                     layer.value, traits.name, rows, columns, traits.block_elems));
  }
  return *bytes;
}

// KV heads in a unit: the fewest whose columns of wo end on a block; all of them when none do.
uint32_t HeadsPerUnit(const ModelConfig& config, DType wo) {
  const uint64_t columns = uint64_t{config.group()} * config.head_dim;
  for (uint32_t heads = 1; heads < config.n_kv_heads; ++heads) {
    if (heads * columns % Traits(wo).block_elems == 0) {
      return heads;
    }
  }
  return config.n_kv_heads;
}

Block EmbedBlock(const ModelConfig& config, const BlockTypes& types) {
  Block block;
  block.kind = BlockKind::kEmbed;
  block.elems = config.vocab;
  block.elems_per_unit = kVocabUnitRows;
  block.units = UnitsFor(block.elems, block.elems_per_unit);
  block.bytes_per_elem = Bytes{RowBytes(types.embedding, config.hidden)};
  return block;
}

Block AttentionBlock(const ModelConfig& config, const BlockTypes& types, LayerIndex layer) {
  const uint64_t query_rows = uint64_t{config.group()} * config.head_dim;
  Block block;
  block.kind = BlockKind::kAttention;
  block.layer = layer;
  block.elems = config.n_kv_heads;
  block.elems_per_unit = HeadsPerUnit(config, types.wo);
  block.units = UnitsFor(block.elems, block.elems_per_unit);
  block.norm_bytes = Bytes{uint64_t{config.hidden} * sizeof(float)};
  block.bytes_per_elem = Bytes{
      query_rows * RowBytes(types.wq, config.hidden) +
      config.head_dim * (RowBytes(types.wk, config.hidden) + RowBytes(types.wv, config.hidden)) +
      HeadColumnBytes(types.wo, config.hidden, query_rows, layer)};
  if (config.attention_bias) {
    // A KV head takes its own part of the biases of k and v, and its query heads' of q.
    block.bytes_per_elem += Bytes{(query_rows + 2 * config.head_dim) * sizeof(float)};
  }
  if (config.qk_norm) block.head_norm_bytes = Bytes{2 * config.head_dim * sizeof(float)};
  block.params_per_elem = 2 * (query_rows + config.head_dim) * config.hidden;
  block.kv_bytes_per_elem_token = Bytes{2 * kKvElementBytes * config.head_dim};
  return block;
}

Block MlpBlock(const ModelConfig& config, const BlockTypes& types, LayerIndex layer) {
  Block block;
  block.kind = BlockKind::kMlp;
  block.layer = layer;
  // Ends at the block's length at the latest; the FFN width is a multiple of that.
  while (!ColumnBytes(types.down, config.hidden, block.columns)) {
    block.columns *= 2;
  }
  Check(config.ffn % block.columns == 0, "block graph: the FFN down matrix has whole blocks");
  block.elems = config.ffn / block.columns;
  block.elems_per_unit = std::max(kMlpUnitColumns, Traits(types.down).block_elems) / block.columns;
  block.units = UnitsFor(block.elems, block.elems_per_unit);
  block.norm_bytes = Bytes{uint64_t{config.hidden} * sizeof(float)};
  block.bytes_per_elem = Bytes{
      block.columns * (RowBytes(types.gate, config.hidden) + RowBytes(types.up, config.hidden)) +
      *ColumnBytes(types.down, config.hidden, block.columns)};
  block.params_per_elem = uint64_t{3} * config.hidden * block.columns;
  return block;
}

Block HeadBlock(const ModelConfig& config, const BlockTypes& types) {
  Block block;
  block.kind = BlockKind::kHead;
  block.elems = config.vocab;
  block.elems_per_unit = kVocabUnitRows;
  block.units = UnitsFor(block.elems, block.elems_per_unit);
  block.sums = false;
  block.norm_bytes = Bytes{uint64_t{config.hidden} * sizeof(float)};
  block.bytes_per_elem = Bytes{RowBytes(types.output, config.hidden)};
  block.params_per_elem = config.hidden;
  return block;
}

}  // namespace

const char* ToString(BlockKind kind) {
  switch (kind) {
    case BlockKind::kEmbed:
      return "EMBED";
    case BlockKind::kAttention:
      return "ATTENTION";
    case BlockKind::kMlp:
      return "MLP";
    case BlockKind::kMoe:
      return "MOE";
    case BlockKind::kHead:
      return "HEAD";
  }
  return "?";
}

BlockGraph BuildBlockGraph(const ModelConfig& config, const std::vector<BlockTypes>& types) {
  Check(types.size() == size_t{config.n_layers} + 1, "block graph: one entry a layer, and one");
  BlockGraph graph;
  graph.config = config;
  graph.tied = config.tied_embedding;
  graph.blocks.reserve(size_t{2} * config.n_layers + 2);
  graph.blocks.push_back(EmbedBlock(config, types[0]));
  for (uint32_t layer = 0; layer < config.n_layers; ++layer) {
    graph.blocks.push_back(AttentionBlock(config, types[layer + 1], LayerIndex{layer}));
    graph.blocks.push_back(MlpBlock(config, types[layer + 1], LayerIndex{layer}));
  }
  graph.blocks.push_back(HeadBlock(config, types[0]));
  return graph;
}

}  // namespace tandem
