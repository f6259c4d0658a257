#include "kernels/cuda/step_recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/error.h"

namespace tandem::cuda {
namespace {

constexpr uint64_t kAlign = 64;
constexpr uint64_t kTableBytes = uint64_t{1} << 20;
constexpr uint64_t kAngleBytes = uint64_t{1} << 20;
constexpr uint64_t kPageBytes = uint64_t{2} << 20;

uint64_t RoundUp(uint64_t n) { return (n + kAlign - 1) / kAlign * kAlign; }

uint32_t RowsOf(std::span<const SequenceRows> sequences) {
  uint32_t rows = 0;
  for (const SequenceRows& sequence : sequences) rows += sequence.n_rows;
  return rows;
}

}  // namespace

StepRecorder::StepRecorder(Device& device, void* stream, PinnedRing& ring, uint32_t blocks)
    : stream_(stream),
      ring_(ring),
      blocks_(blocks),
      memory_(device.Allocate(MemoryUse::kWorkspace, Bytes{kTableBytes + kAngleBytes + kPageBytes},
                              "tables of recorded steps")),
      frequencies_(device, stream, ring, "rotary frequencies of recorded steps") {}

uint64_t StepRecorder::Take(uint64_t& used, uint64_t bytes, uint64_t room) {
  const uint64_t at = used;
  if (RoundUp(bytes) > room - used) {
    Fail(ErrorCode::kUnsupported,
         fmt::format("kernels/cuda: the tables of a recorded step take more than {} bytes (want "
                     "fewer sequences, or --graphs off)",
                     room));
  }
  used += RoundUp(bytes);
  return at;
}

void StepRecorder::Begin(std::span<const StepRows> rows, uint32_t positions) {
  Check(!active(), "kernels/cuda: one step is recorded at a time");
  known_.assign(rows.begin(), rows.end());
  auto recorded = std::make_unique<Recorded>();
  recorded->positions = positions;
  for (const StepRows& step : rows) {
    Rows& own = recorded->rows.emplace_back();
    own.n = RowsOf(step.sequences);
    Check(step.ids.size() == own.n, "kernels/cuda: an id for each row of a recorded step");
    own.ids = Take(recorded->used, own.n * sizeof(int32_t), kTableBytes);
    own.places = Take(recorded->used, own.n * sizeof(RowPlace), kTableBytes);
  }
  recorded_ = std::move(recorded);
}

std::unique_ptr<RecordedRows> StepRecorder::End() { return std::move(recorded_); }

size_t StepRecorder::MicrobatchOf(std::span<const SequenceRows> sequences) const {
  const auto found = std::find_if(known_.begin(), known_.end(), [&](const StepRows& rows) {
    return rows.sequences.data() == sequences.data() && rows.sequences.size() == sequences.size();
  });
  if (found == known_.end()) {
    Fail(ErrorCode::kUnsupported,
         "kernels/cuda: a part of a microbatch's rows cannot be recorded (want all of them in one "
         "call); run with --graphs off");
  }
  return static_cast<size_t>(found - known_.begin());
}

const int32_t* StepRecorder::Ids(std::span<const int32_t> ids) {
  const auto found = std::find_if(known_.begin(), known_.end(), [&](const StepRows& rows) {
    return rows.ids.data() == ids.data() && rows.ids.size() == ids.size();
  });
  Check(found != known_.end(), "kernels/cuda: ids of a microbatch that is recorded");
  const Rows& rows = recorded_->rows[static_cast<size_t>(found - known_.begin())];
  return reinterpret_cast<const int32_t*>(memory_.data() + rows.ids);
}

StepRecorder::Turns StepRecorder::Rope(std::span<const SequenceRows> sequences,
                                       const RopeParams& rope) {
  Rows& rows = recorded_->rows[MicrobatchOf(sequences)];
  if (!rows.rope) {
    rows.rope = rope;
    rows.frequencies = FrequenciesOf(rope);
    rows.angles =
        Take(recorded_->angles_used, uint64_t{rows.n} * rope.rope_dim * sizeof(float), kAngleBytes);
  }
  Check(rows.rope->rope_dim == rope.rope_dim && rows.rope->magnitude == rope.magnitude &&
            rows.frequencies == FrequenciesOf(rope),
        "kernels/cuda: all layers of a recorded step turn alike");
  return {.places = reinterpret_cast<const RowPlace*>(memory_.data() + rows.places),
          .n = rows.n,
          .angles = reinterpret_cast<const float*>(memory_.data() + kTableBytes + rows.angles)};
}

// The table that layers of this shape share, made where it is the first.
const StepRecorder::TileTable& StepRecorder::TableOf(size_t microbatch,
                                                     std::span<const SequenceRows> sequences,
                                                     const AttentionShape& shape,
                                                     uint64_t most_partials) {
  for (const TileTable& table : recorded_->tables) {
    if (table.microbatch == microbatch && table.shape == shape) return table;
  }
  const AttentionRoom room = RoomForAttention(sequences, shape, recorded_->positions,
                                              {.blocks = blocks_, .most_partials = most_partials});
  TileTable& table = recorded_->tables.emplace_back();
  table.microbatch = microbatch;
  table.shape = shape;
  table.apart = room.apart;
  table.n_tiles = room.tiles;
  table.n_joins = room.joins;
  table.tiles = Take(recorded_->used, room.tiles * sizeof(AttentionTile), kTableBytes);
  table.joins = Take(recorded_->used, room.joins * sizeof(AttentionTile), kTableBytes);
  return table;
}

StepRecorder::Tiles StepRecorder::Attention(std::span<const SequenceRows> sequences,
                                            const AttentionShape& shape, uint64_t most_partials) {
  const size_t microbatch = MicrobatchOf(sequences);
  const TileTable& table = TableOf(microbatch, sequences, shape, most_partials);
  const auto at = [&](uint64_t offset) {
    return reinterpret_cast<const AttentionTile*>(memory_.data() + offset);
  };
  return {.tiles = at(table.tiles),
          .n_tiles = table.n_tiles,
          .joins = at(table.joins),
          .n_joins = table.n_joins,
          .pages = reinterpret_cast<const int32_t*>(memory_.data() + kTableBytes + kAngleBytes)};
}

void StepRecorder::FillRows(const Rows& rows, const StepRows& from) {
  Check(RowsOf(from.sequences) == rows.n && from.ids.size() == rows.n,
        "kernels/cuda: as many rows as were recorded");
  std::copy(from.ids.begin(), from.ids.end(), reinterpret_cast<int32_t*>(image_.data() + rows.ids));
  auto* place = reinterpret_cast<RowPlace*>(image_.data() + rows.places);
  for (const SequenceRows& sequence : from.sequences) place = PlaceRows(sequence, place);
}

void StepRecorder::FillTiles(const TileTable& table, const StepRows& from, uint32_t first_page) {
  AttentionPlan plan = PlanTiles(from.sequences, table.shape, table.apart);
  const auto put = [&](std::vector<AttentionTile>& tiles, uint32_t room, uint64_t at) {
    Check(tiles.size() <= room, "kernels/cuda: tiles within the bound of the recording");
    for (AttentionTile& tile : tiles) tile.pages += first_page;
    tiles.resize(room, AttentionTile{});  // no queries: their blocks leave
    std::copy(tiles.begin(), tiles.end(), reinterpret_cast<AttentionTile*>(image_.data() + at));
  };
  put(plan.tiles, table.n_tiles, table.tiles);
  put(plan.joins, table.n_joins, table.joins);
}

void StepRecorder::Fill(RecordedRows& recorded, std::span<const StepRows> rows) {
  const auto& step = static_cast<const Recorded&>(recorded);
  Check(rows.size() == step.rows.size(), "kernels/cuda: the microbatches that were recorded");
  image_.assign(step.used, std::byte{0});
  pages_.clear();
  for (size_t m = 0; m < rows.size(); ++m) {
    FillRows(step.rows[m], rows[m]);
    const auto first_page = static_cast<uint32_t>(pages_.size());
    for (const SequenceRows& sequence : rows[m].sequences) {
      const uint32_t count = sequence.start + sequence.n_rows;
      Check(count <= step.positions, "kernels/cuda: a sequence within the bound of the recording");
      pages_.insert(pages_.end(), sequence.pages,
                    sequence.pages + (count + kPageTokens - 1) / kPageTokens);
    }
    for (const TileTable& table : step.tables) {
      if (table.microbatch == m) FillTiles(table, rows[m], first_page);
    }
  }
  if (pages_.size() * sizeof(int32_t) > kPageBytes) {
    Fail(ErrorCode::kUnsupported,
         fmt::format("kernels/cuda: a recorded step over {} pages of KV (want at most {}, or "
                     "--graphs off)",
                     pages_.size(), kPageBytes / sizeof(int32_t)));
  }
  ring_.Copy(memory_.data(), image_.data(), image_.size());
  ring_.Copy(memory_.data() + kTableBytes + kAngleBytes,
             reinterpret_cast<const std::byte*>(pages_.data()), pages_.size() * sizeof(int32_t));
  for (const Rows& own : step.rows) TurnAngles(own);
}

void StepRecorder::TurnAngles(const Rows& rows) {
  if (!rows.rope || rows.n == 0 || rows.rope->rope_dim == 0) return;
  const double* frequencies = frequencies_.Put(std::span<const double>(rows.frequencies));
  LaunchAngles(reinterpret_cast<const RowPlace*>(memory_.data() + rows.places), rows.n, frequencies,
               rows.rope->rope_dim / 2, rows.rope->magnitude,
               reinterpret_cast<float*>(memory_.data() + kTableBytes + rows.angles),
               GpuStream{stream_});
}

}  // namespace tandem::cuda
