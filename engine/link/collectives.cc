#include "engine/link/collectives.h"

#include <algorithm>
#include <array>

#include "engine/base/check.h"
#include "engine/link/wire.h"

namespace tandem {
namespace {

constexpr size_t kMaxRanks = 64;

// Scratch of a rank: one area to send from, one to receive from each rank.
uint64_t ChunkElems(const CollectiveContext& context, size_t ranks) {
  const uint64_t area = context.scratch_bytes / (ranks + 1) / 4;
  Check(area >= kWireBlock, "collective: scratch too small");
  return area / kWireBlock * kWireBlock;
}
// Areas are as large as an f32 chunk, which no wire type exceeds for a whole block.
std::byte* SendArea(const CollectiveRank& rank) { return rank.scratch; }
std::byte* ReceiveArea(const CollectiveRank& rank, uint64_t chunk, size_t from) {
  return rank.scratch + 4 * chunk * (from + 1);
}

// Moves elements [0, n) at `from` on src to dst, as wire bytes where `encoded` holds them.
void MoveWire(const CollectiveContext& context, const CollectiveRank& src, const std::byte* from,
              const CollectiveRank& dst, std::byte* to, uint64_t n) {
  context.transport->Copy(CopyTask{.src = src.device,
                                   .from = from,
                                   .dst = dst.device,
                                   .to = to,
                                   .row_bytes = WireBytes(context.wire, n).value},
                          context.stream, *context.ledger);
}

// The bytes to send for x (n): x itself on an f32 wire, else encoded in the rank's send area.
const std::byte* WireForm(const CollectiveContext& context, const CollectiveRank& rank,
                          const float* x, uint64_t n) {
  if (context.wire == WireType::kF32) return reinterpret_cast<const std::byte*>(x);
  EncodeWire(context.wire, x, n, SendArea(rank));
  return SendArea(rank);
}

// Sums elements [begin, end) of every rank's `in` onto the ranks in [first, last), in rank order;
// element `begin` lands at out[begin - out_offset].
void ReduceRange(const CollectiveContext& context, std::span<const CollectiveRank> ranks,
                 size_t first, size_t last, uint64_t begin, uint64_t end, uint64_t out_offset) {
  const uint64_t chunk = ChunkElems(context, ranks.size());
  std::array<const std::byte*, kMaxRanks> wire{};
  for (uint64_t at = begin; at < end; at += chunk) {
    const uint64_t n = std::min(chunk, end - at);
    for (size_t r = 0; r < ranks.size(); ++r) {
      wire[r] = WireForm(context, ranks[r], ranks[r].in + at, n);
    }
    for (size_t t = first; t < last; ++t) {
      float* out = ranks[t].out + (at - out_offset);
      for (size_t r = 0; r < ranks.size(); ++r) {
        const std::byte* partial = wire[r];
        if (r != t) {
          std::byte* received = ReceiveArea(ranks[t], chunk, r);
          MoveWire(context, ranks[r], wire[r], ranks[t], received, n);
          partial = received;
        }
        if (r == 0) {
          DecodeWire(context.wire, partial, n, out);
        } else {
          DecodeAddWire(context.wire, partial, n, out);
        }
      }
    }
  }
}

// Sends x (n) of rank `from` to `out + offset` of every other rank. The sender's own copy is left
// to the caller.
void BroadcastRange(const CollectiveContext& context, std::span<const CollectiveRank> ranks,
                    size_t from, const float* x, uint64_t n, uint64_t offset) {
  const uint64_t chunk = ChunkElems(context, ranks.size());
  for (uint64_t at = 0; at < n; at += chunk) {
    const uint64_t length = std::min(chunk, n - at);
    const std::byte* wire = WireForm(context, ranks[from], x + at, length);
    for (size_t t = 0; t < ranks.size(); ++t) {
      if (t == from) continue;
      float* out = ranks[t].out + offset + at;
      if (context.wire == WireType::kF32) {
        MoveWire(context, ranks[from], wire, ranks[t], reinterpret_cast<std::byte*>(out), length);
        continue;
      }
      std::byte* received = ReceiveArea(ranks[t], chunk, from);
      MoveWire(context, ranks[from], wire, ranks[t], received, length);
      DecodeWire(context.wire, received, length, out);
    }
  }
}

void CheckRanks(std::span<const CollectiveRank> ranks) {
  Check(!ranks.empty() && ranks.size() <= kMaxRanks, "collective: number of ranks");
}

// Element `at` of a (rows, width) message, scattered to out (rows, out_width) from column `begin`.
void ScatterColumns(const float* values, uint64_t n, uint64_t at, const ColumnShard& shard,
                    uint64_t out_width, float* out) {
  uint64_t row = at / shard.width;
  uint64_t col = at % shard.width;
  while (n > 0) {
    const uint64_t run = std::min(n, shard.width - col);
    std::copy_n(values, run, out + row * out_width + shard.begin + col);
    values += run;
    n -= run;
    ++row;
    col = 0;
  }
}

}  // namespace

uint64_t MinCollectiveScratch(size_t ranks) { return (ranks + 2) * 4 * kWireBlock; }

void AllReduce(const CollectiveContext& context, Algorithm algorithm,
               std::span<const CollectiveRank> ranks, uint64_t n) {
  CheckRanks(ranks);
  if (n == 0) return;
  if (algorithm != Algorithm::kTwoShot) {
    ReduceRange(context, ranks, 0, ranks.size(), 0, n, 0);
    return;
  }
  const size_t count = ranks.size();
  for (size_t i = 0; i < count; ++i) {
    ReduceRange(context, ranks, i, i + 1, n * i / count, n * (i + 1) / count, 0);
  }
  for (size_t i = 0; i < count; ++i) {
    const uint64_t begin = n * i / count;
    const uint64_t length = n * (i + 1) / count - begin;
    float* own = ranks[i].out + begin;
    BroadcastRange(context, ranks, i, own, length, begin);
    if (count > 1) RoundToWire(context.wire, own, length, own);
  }
}

void ReduceScatter(const CollectiveContext& context, std::span<const CollectiveRank> ranks,
                   std::span<const uint64_t> cuts) {
  CheckRanks(ranks);
  Check(cuts.size() == ranks.size() + 1, "reduce_scatter: one shard a rank");
  for (size_t i = 0; i < ranks.size(); ++i) {
    ReduceRange(context, ranks, i, i + 1, cuts[i], cuts[i + 1], cuts[i]);
  }
}

void AllGather(const CollectiveContext& context, std::span<const CollectiveRank> ranks,
               std::span<const uint64_t> cuts) {
  CheckRanks(ranks);
  Check(cuts.size() == ranks.size() + 1, "all_gather: one shard a rank");
  for (size_t i = 0; i < ranks.size(); ++i) {
    const uint64_t length = cuts[i + 1] - cuts[i];
    BroadcastRange(context, ranks, i, ranks[i].in, length, cuts[i]);
    RoundToWire(context.wire, ranks[i].in, length, ranks[i].out + cuts[i]);
  }
}

void AllGatherColumns(const CollectiveContext& context, std::span<const CollectiveRank> ranks,
                      std::span<const ColumnShard> shards, uint64_t rows, uint64_t out_width) {
  CheckRanks(ranks);
  Check(shards.size() == ranks.size(), "all_gather: one shard a rank");
  const uint64_t chunk = ChunkElems(context, ranks.size() + 1);
  for (size_t i = 0; i < ranks.size(); ++i) {
    const ColumnShard& shard = shards[i];
    const uint64_t n = rows * shard.width;
    for (uint64_t at = 0; at < n; at += chunk) {
      const uint64_t length = std::min(chunk, n - at);
      const std::byte* wire = WireForm(context, ranks[i], ranks[i].in + at, length);
      for (size_t t = 0; t < ranks.size(); ++t) {
        std::byte* received = ReceiveArea(ranks[t], chunk, 0);
        auto* values = reinterpret_cast<float*>(ReceiveArea(ranks[t], chunk, 1));
        if (t != i) MoveWire(context, ranks[i], wire, ranks[t], received, length);
        DecodeWire(context.wire, t == i ? wire : received, length, values);
        ScatterColumns(values, length, at, shard, out_width, ranks[t].out);
      }
    }
  }
}

void SendActivations(const CollectiveContext& context, const CollectiveRank& src,
                     const CollectiveRank& dst, uint64_t n) {
  Check(src.in != nullptr && dst.out != nullptr, "send: null buffer");
  if (context.wire == WireType::kF32) {
    MoveWire(context, src, reinterpret_cast<const std::byte*>(src.in), dst,
             reinterpret_cast<std::byte*>(dst.out), n);
    return;
  }
  const uint64_t chunk = ChunkElems(context, 2);
  for (uint64_t at = 0; at < n; at += chunk) {
    const uint64_t length = std::min(chunk, n - at);
    const std::byte* wire = WireForm(context, src, src.in + at, length);
    std::byte* received = ReceiveArea(dst, chunk, 0);
    MoveWire(context, src, wire, dst, received, length);
    DecodeWire(context.wire, received, length, dst.out + at);
  }
}

}  // namespace tandem
