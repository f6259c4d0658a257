#include "engine/run/microbatch.h"

#include <algorithm>

namespace tandem {
namespace {

void Clear(Microbatch& mb) {
  mb.ids.clear();
  mb.sequences.clear();
  mb.sampled.clear();
  mb.sampled_spans.clear();
  mb.shape = {};
}

// Appends rows [first, first + count) of sequence `index`.
void Append(const StepBatch& batch, uint32_t index, uint32_t first, uint32_t count,
            Microbatch& mb) {
  if (count == 0) return;
  const BatchSequence& sequence = batch.sequences[index];
  const auto n_tokens = static_cast<uint32_t>(sequence.tokens.size());
  const uint32_t row0 = mb.shape.rows;
  const uint32_t start = sequence.start + first;
  mb.ids.insert(mb.ids.end(), sequence.tokens.begin() + first,
                sequence.tokens.begin() + first + count);
  mb.sequences.push_back(
      SequenceRows{.first_row = row0, .n_rows = count, .start = start, .pages = sequence.pages});

  const uint32_t sampled_from = std::max(first, n_tokens - sequence.sampled);
  const uint32_t end = first + count;
  if (sampled_from < end) {
    const RowSpan span{row0 + sampled_from - first, end - sampled_from};
    RowSpan* last = mb.sampled_spans.empty() ? nullptr : &mb.sampled_spans.back();
    if (last != nullptr && last->first + last->count == span.first) {
      last->count += span.count;
    } else {
      mb.sampled_spans.push_back(span);
    }
    for (uint32_t row = sampled_from; row < end; ++row) {
      mb.sampled.push_back(SampledRow{.sequence = index, .row = row});
    }
    mb.shape.sampled += span.count;
  }
  mb.shape.rows += count;
  // Row i attends to start + i + 1 positions.
  mb.shape.attended += uint64_t{count} * (start + 1) + uint64_t{count} * (count - 1) / 2;
  mb.shape.kv_tokens += start + count;
}

void CutByChunk(const StepBatch& batch, std::vector<Microbatch>& out) {
  uint64_t total = 0;
  for (const BatchSequence& sequence : batch.sequences) total += sequence.tokens.size();
  const uint64_t count = out.size();
  uint64_t sequence_begin = 0;  // of all rows
  for (uint32_t index = 0; index < batch.sequences.size(); ++index) {
    const uint64_t sequence_end = sequence_begin + batch.sequences[index].tokens.size();
    for (uint64_t m = 0; m < count; ++m) {
      const uint64_t begin = std::max(sequence_begin, total * m / count);
      const uint64_t end = std::min(sequence_end, total * (m + 1) / count);
      if (begin < end) {
        Append(batch, index, static_cast<uint32_t>(begin - sequence_begin),
               static_cast<uint32_t>(end - begin), out[m]);
      }
    }
    sequence_begin = sequence_end;
  }
}

}  // namespace

void CutMicrobatches(const Program& program, const StepBatch& batch, std::vector<Microbatch>& out) {
  out.resize(program.microbatches);
  for (Microbatch& mb : out) Clear(mb);
  if (program.microbatch_kind == MicrobatchKind::kByChunk) {
    CutByChunk(batch, out);
    return;
  }
  for (uint32_t index = 0; index < batch.sequences.size(); ++index) {
    const BatchSequence& sequence = batch.sequences[index];
    const uint32_t m = program.microbatch_kind == MicrobatchKind::kBySequence
                           ? sequence.slot % program.microbatches
                           : 0;
    Append(batch, index, 0, static_cast<uint32_t>(sequence.tokens.size()), out[m]);
  }
}

}  // namespace tandem
