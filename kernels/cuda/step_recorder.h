// The tables that kernels of a recorded step read: one stretch of the GPU's memory, laid out as the
// step's ops are recorded and filled before each replay. All recordings share it, for a replay's
// tables are brought in the order of the stream, just before it.
//
// A table is as long as the recording's bound asks for; where a step has less, it is padded with
// tiles without queries, whose blocks leave at once.
//
// Thread rule: one host thread.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/step_tables.h"
#include "kernels/ops.h"

namespace tandem::cuda {

class StepRecorder final : public OpsRecorder {
 public:
  // `blocks`: how many blocks of attention keep the GPU busy.
  StepRecorder(Device& device, void* stream, PinnedRing& ring, uint32_t blocks);

  bool active() const { return recorded_ != nullptr; }
  void Begin(std::span<const StepRows> rows, uint32_t positions) override;
  std::unique_ptr<RecordedRows> End() override;
  void Fill(RecordedRows& recorded, std::span<const StepRows> rows) override;

  // While active, what a kernel reads in place of the host's spans. Throws Error(kUnsupported) for
  // rows that are not those of Begin, and where the tables are full.
  const int32_t* Ids(std::span<const int32_t> ids);
  struct Turns {
    const RowPlace* places = nullptr;
    uint32_t n = 0;
    const float* angles = nullptr;  // filled by Fill
  };
  Turns Rope(std::span<const SequenceRows> sequences, const RopeParams& rope);
  struct Tiles {
    const AttentionTile* tiles = nullptr;
    uint32_t n_tiles = 0;
    const AttentionTile* joins = nullptr;
    uint32_t n_joins = 0;
    const int32_t* pages = nullptr;
  };
  // `most_partials`: fold states of all KV heads that may be kept.
  Tiles Attention(std::span<const SequenceRows> sequences, const AttentionShape& shape,
                  uint64_t most_partials);

 private:
  // Of one microbatch.
  struct Rows {
    uint32_t n = 0;
    uint64_t ids = 0, places = 0;  // offsets in the tables
    std::optional<RopeParams> rope;
    std::vector<double> frequencies;
    uint64_t angles = 0;
  };
  struct TileTable {
    size_t microbatch = 0;
    AttentionShape shape;
    bool apart = false;  // each fold by a block of its own
    uint64_t tiles = 0, joins = 0;
    uint32_t n_tiles = 0, n_joins = 0;
  };
  struct Recorded final : RecordedRows {
    std::vector<Rows> rows;
    std::vector<TileTable> tables;
    uint32_t positions = 0;
    uint64_t used = 0, angles_used = 0;
  };

  uint64_t Take(uint64_t& used, uint64_t bytes, uint64_t room);
  const TileTable& TableOf(size_t microbatch, std::span<const SequenceRows> sequences,
                           const AttentionShape& shape, uint64_t most_partials);
  size_t MicrobatchOf(std::span<const SequenceRows> sequences) const;
  void FillRows(const Rows& rows, const StepRows& from);
  void FillTiles(const TileTable& table, const StepRows& from, uint32_t first_page);
  void TurnAngles(const Rows& rows);

  void* stream_;
  PinnedRing& ring_;
  uint32_t blocks_;
  Buffer memory_;  // tables, angles, pages
  StepTable frequencies_;
  std::unique_ptr<Recorded> recorded_;  // while active
  std::vector<StepRows> known_;
  // The host's side of a fill.
  std::vector<std::byte> image_;
  std::vector<int32_t> pages_;
};

}  // namespace tandem::cuda
