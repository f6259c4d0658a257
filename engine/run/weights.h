// The weights of a plan, packed: one shard a place, in its device's (or the host's) memory, and the
// slots that fetches fill. Norm vectors are copied to every device that applies them, biases go
// with the rows they belong to.
//
// Which shards there are is ShardsOf's to say (engine/plan/shards.h).
//
// Immutable after construction, except the slots' contents, which the executor copies in.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "engine/model/model.h"
#include "engine/plan/plan.h"
#include "engine/plan/shards.h"
#include "engine/run/backend.h"
#include "engine/run/host_weights.h"

namespace tandem {

inline constexpr size_t kMaxBlockMatrices = 4;
inline constexpr size_t kMaxBlockBiases = 3;

// Elements [begin, end) of a bias vector.
struct BiasPart {
  const TensorView* tensor = nullptr;
  uint64_t begin = 0;
  uint64_t end = 0;
  float* data = nullptr;  // (end - begin)
  uint64_t bytes() const { return (end - begin) * sizeof(float); }
};

// The norms of an ATTENTION block's heads, (head_dim) each; null: heads are not normalised.
struct HeadNorms {
  const float* q = nullptr;
  const float* k = nullptr;
};

// Elements [begin, end) of a block (KV heads, FFN columns, vocabulary rows), packed in one piece of
// memory. Matrices: ATTENTION wq, wk, wv, wo; MLP gate, up, down; EMBED and HEAD the table. Biases,
// as f32 behind the matrices: ATTENTION's of q, k and v, or none.
struct BlockShard {
  BlockId block;
  uint32_t begin = 0;
  uint32_t end = 0;
  std::array<PackedMatrix, kMaxBlockMatrices> matrices;
  uint32_t n_matrices = 0;
  std::array<BiasPart, kMaxBlockBiases> biases;
  uint32_t n_biases = 0;
  std::byte* data = nullptr;
  uint64_t bytes = 0;         // as packed, padding included
  uint64_t stored_bytes = 0;  // as the model stores them: what a fetch books
  bool page_locked = true;    // of the host's memory: a device copies from it at full rate
};

// The tensors of a block and the part of each that elements [begin, end) need.
struct TensorSlice {
  const TensorView* tensor = nullptr;
  MatrixSlice slice;
};
std::vector<TensorSlice> SlicesOf(const Model& model, BlockId block, uint32_t begin, uint32_t end);
// Likewise of the biases, without data.
std::vector<BiasPart> BiasesOf(const Model& model, BlockId block, uint32_t begin, uint32_t end);

class WeightStore {
 public:
  // All outlive the store. Weights in the host's memory are packed as the device that fetches them
  // packs its own.
  // `host_workspace` is what the plan needs of the host's memory beside weights.
  WeightStore(const Model& model, const Plan& plan, Backend& backend, Bytes host_workspace);

  // The resident shard on a device that holds element `elem` of the block; null when none does.
  const BlockShard* Resident(DeviceId device, BlockId block, uint32_t elem) const;
  // The shard that a FETCH of these units reads, exactly them; null when the source lacks them.
  const BlockShard* FetchSource(DeviceId source, BlockId block, UnitRange units) const;
  // The slot seen as the shard that a FETCH of these units makes of it.
  const BlockShard* InSlot(SlotId slot, BlockId block, UnitRange units) const;
  // The norm vector (hidden) on a device that applies it.
  const float* Norm(DeviceId device, BlockId block) const;
  // Those of a device that runs any part of the block.
  HeadNorms NormsOfHeads(DeviceId device, BlockId block) const;

  Bytes packed_bytes() const { return packed_bytes_; }
  // Of those in the host's memory, the ones that are not page-locked.
  Bytes pageable_bytes() const { return host_.pageable(); }

 private:
  struct Owned {
    DeviceId device;
    BlockShard shard;
    Buffer buffer;
    bool fetch_only = false;  // a copy made for fetches; runs do not read it
  };
  struct SlotView {
    SlotId slot;
    BlockShard shard;
  };
  struct NormCopy {
    DeviceId device;
    BlockId block;
    const TensorView* tensor;
    Buffer buffer;
  };

  Device& DeviceOf(DeviceId id) const;
  Ops& OpsOf(DeviceId id) const {
    return backend_.ops(static_cast<size_t>(id.IsHost() ? fetcher_.value : id.value));
  }
  BlockShard Shape(DeviceId device, BlockId block, uint32_t begin, uint32_t end) const;
  void Fill(const BlockShard& shard, DeviceId device);
  void PackShard(const WeightShard& spec);
  void PrepareSlots(const Plan& plan);
  void CopyNorms(const Plan& plan);
  void CopyNorm(DeviceId device, BlockId block, const TensorView& norm);
  const float* FindNorm(DeviceId device, BlockId block, const TensorView& norm) const;
  const Owned* FindExact(DeviceId device, BlockId block, uint32_t begin, uint32_t end) const;

  const Model& model_;
  const BlockGraph& graph_;
  Backend& backend_;
  HostWeights host_;
  const DeviceId fetcher_;  // one of those that fetch from the host
  std::vector<std::unique_ptr<Owned>> shards_;
  std::vector<Buffer> slot_buffers_;
  std::vector<std::unique_ptr<SlotView>> slot_views_;
  std::vector<NormCopy> norms_;
  Bytes packed_bytes_;
};

}  // namespace tandem
