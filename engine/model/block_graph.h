// The model as a chain of blocks, each made of units: what plans are written about.
//
// Blocks: EMBED is 0; ATTENTION of layer l is 1 + 2l and its MLP 2 + 2l; HEAD is 1 + 2L.
// A unit is the smallest piece of a block that can live apart from the rest: a group of KV heads
// with their query heads, a group of MLP columns, a chunk of vocabulary. Units never cut a head or
// a quantisation block, so an uneven count may leave the last unit smaller than the others.
// ATTENTION, MLP and EMBED outputs over disjoint units are *summed* to the whole; HEAD outputs are
// *concatenated*.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/units.h"
#include "engine/model/config.h"
#include "engine/model/dtype.h"

namespace tandem {

enum class BlockKind : uint8_t { kEmbed, kAttention, kMlp, kMoe, kHead };

const char* ToString(BlockKind kind);  // "EMBED", "ATTENTION", ...

struct Block {
  BlockKind kind = BlockKind::kEmbed;
  LayerIndex layer;  // meaningful for ATTENTION and MLP
  uint32_t units = 0;
  uint32_t elems_per_unit = 0;  // KV heads, FFN columns or vocabulary rows in a full unit
  uint32_t elems = 0;           // the total; the last unit has elems - (units-1)*elems_per_unit
  uint32_t columns = 1;         // FFN columns in an element of MLP; see bytes_per_elem
  bool sums = true;             // partial outputs add up (false: they concatenate)
  Bytes norm_bytes;             // the block's own input norm (f32), on every device that applies it
  Bytes head_norm_bytes;        // norms of the heads of q and k, on every device that runs any unit

  // Elements [first, last) that a range of units covers.
  uint32_t ElemBegin(UnitRange r) const { return Clip(r.begin); }
  uint32_t ElemEnd(UnitRange r) const { return Clip(r.end); }
  uint32_t ElemCount(UnitRange r) const { return ElemEnd(r) - ElemBegin(r); }
  UnitRange AllUnits() const { return UnitRange{0, units}; }

  // Stored bytes and multiply-add weight count per element (a KV head with its query heads, an FFN
  // column, a vocabulary row): weights of a unit range are ElemCount * these. Exact over units;
  // one element's columns of a quantised matrix count as their share of its blocks, in whole bytes:
  // where one FFN column's share is a fraction (Q6_K beside a hidden width of 576), an element is
  // the fewest columns, `columns`, that make it whole. EMBED only looks rows up, so it counts no
  // multiply-adds.
  Bytes bytes_per_elem;
  uint64_t params_per_elem = 0;
  Bytes kv_bytes_per_elem_token;  // f16 keys and values per element and token (ATTENTION)

  Bytes UnitBytes(UnitRange r) const { return bytes_per_elem * ElemCount(r); }
  Bytes KvBytesPerToken(UnitRange r) const { return kv_bytes_per_elem_token * ElemCount(r); }

 private:
  uint32_t Clip(uint32_t unit) const {
    uint64_t elem = uint64_t{unit} * elems_per_unit;
    return elem < elems ? static_cast<uint32_t>(elem) : elems;
  }
};

// Weight types of the tensors that decide where blocks may be cut.
struct BlockTypes {
  DType embedding = DType::kF32;
  DType wq = DType::kF32, wk = DType::kF32, wv = DType::kF32, wo = DType::kF32;
  DType gate = DType::kF32, up = DType::kF32, down = DType::kF32;
  DType output = DType::kF32;
};

struct BlockGraph {
  ModelConfig config;
  std::vector<Block> blocks;
  bool tied = false;  // EMBED and HEAD share one weight: placed and counted once per device

  uint32_t size() const { return static_cast<uint32_t>(blocks.size()); }
  const Block& at(BlockId id) const { return blocks[id.value]; }
  BlockId head() const { return BlockId{size() - 1}; }
  static BlockId AttentionOf(LayerIndex l) { return BlockId{1 + 2 * l.value}; }
  static BlockId MlpOf(LayerIndex l) { return BlockId{2 + 2 * l.value}; }
};

// Builds the chain. `types` holds one entry a layer in [1..L], entry 0 for embedding and output
// (fields a layer does not use are ignored). Types may differ between layers. Throws
// Error(kUnsupported) where a KV head's share would be a fraction of a byte, which takes a
// quantised wo beside an odd hidden width or head.
BlockGraph BuildBlockGraph(const ModelConfig& config, const std::vector<BlockTypes>& types);

}  // namespace tandem
