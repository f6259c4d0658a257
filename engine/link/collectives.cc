#include "engine/link/collectives.h"

#include <algorithm>
#include <array>

#include "engine/base/check.h"
#include "engine/link/direct_collectives.h"
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

// Messages that cross together: sent when there are many, and by Send.
class Messages {
 public:
  explicit Messages(const CollectiveContext& context) : context_(context) {}

  // n elements that lie at `from` on src in their wire form, to `to` on dst.
  void Add(const CollectiveRank& src, const std::byte* from, const CollectiveRank& dst,
           std::byte* to, uint64_t n) {
    if (count_ == tasks_.size()) Send();
    tasks_[count_++] = CopyTask{.src = src.device,
                                .from = from,
                                .dst = dst.device,
                                .to = to,
                                .row_bytes = WireBytes(context_.wire, n).value,
                                .src_queue = src.queue,
                                .dst_queue = dst.queue};
  }
  void Send() {
    if (count_ > 0) context_.transport->CopyAll(std::span(tasks_).first(count_), *context_.ledger);
    count_ = 0;
  }

 private:
  const CollectiveContext& context_;
  std::array<CopyTask, 8> tasks_;
  size_t count_ = 0;
};

// The bytes to send for x (n): x itself on an f32 wire, else encoded in the rank's send area.
const std::byte* WireForm(const CollectiveContext& context, const CollectiveRank& rank,
                          const float* x, uint64_t n) {
  if (context.wire == WireType::kF32) return reinterpret_cast<const std::byte*>(x);
  rank.wire_ops->Encode(rank.queue, context.wire, x, n, SendArea(rank));
  return SendArea(rank);
}

// Sums elements [begin, end) of every rank's `in` onto the ranks in [first, last), in rank order;
// element `begin` lands at out[begin - out_offset].
void ReduceRange(const CollectiveContext& context, std::span<const CollectiveRank> ranks,
                 size_t first, size_t last, uint64_t begin, uint64_t end, uint64_t out_offset) {
  const uint64_t chunk = ChunkElems(context, ranks.size());
  std::array<const std::byte*, kMaxRanks> wire{};
  Messages messages(context);
  for (uint64_t at = begin; at < end; at += chunk) {
    const uint64_t n = std::min(chunk, end - at);
    for (size_t r = 0; r < ranks.size(); ++r) {
      wire[r] = WireForm(context, ranks[r], ranks[r].in + at, n);
    }
    for (size_t t = first; t < last; ++t) {
      for (size_t r = 0; r < ranks.size(); ++r) {
        if (r != t) messages.Add(ranks[r], wire[r], ranks[t], ReceiveArea(ranks[t], chunk, r), n);
      }
    }
    messages.Send();
    for (size_t t = first; t < last; ++t) {
      const CollectiveRank& rank = ranks[t];
      float* out = rank.out + (at - out_offset);
      for (size_t r = 0; r < ranks.size(); ++r) {
        const std::byte* partial = r == t ? wire[r] : ReceiveArea(rank, chunk, r);
        if (r == 0) {
          rank.wire_ops->Decode(rank.queue, context.wire, partial, n, out);
        } else {
          rank.wire_ops->DecodeAdd(rank.queue, context.wire, partial, n, out);
        }
      }
    }
  }
}

// Elements [begin, end) of the whole, which lie at `x` on their rank.
struct Piece {
  const float* x = nullptr;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// Sends each rank's piece to its place in `out` of every other rank. A rank's own copy is left to
// the caller. `piece_of(i)` is rank i's.
template <typename PieceOf>
void ExchangePieces(const CollectiveContext& context, std::span<const CollectiveRank> ranks,
                    const PieceOf& piece_of) {
  const bool plain = context.wire == WireType::kF32;
  const uint64_t chunk = ChunkElems(context, ranks.size());
  uint64_t longest = 0;
  for (size_t i = 0; i < ranks.size(); ++i) {
    const Piece piece = piece_of(i);
    longest = std::max(longest, piece.end - piece.begin);
  }
  Messages messages(context);
  for (uint64_t at = 0; at < longest; at += chunk) {
    // The elements of rank i's piece that cross in this round.
    const auto length = [&](const Piece& piece) {
      const uint64_t whole = piece.end - piece.begin;
      return at < whole ? std::min(chunk, whole - at) : 0;
    };
    for (size_t i = 0; i < ranks.size(); ++i) {
      const Piece piece = piece_of(i);
      const uint64_t n = length(piece);
      if (n == 0) continue;
      const std::byte* wire = WireForm(context, ranks[i], piece.x + at, n);
      for (size_t t = 0; t < ranks.size(); ++t) {
        if (t == i) continue;
        auto* out = reinterpret_cast<std::byte*>(ranks[t].out + piece.begin + at);
        messages.Add(ranks[i], wire, ranks[t], plain ? out : ReceiveArea(ranks[t], chunk, i), n);
      }
    }
    messages.Send();
    if (plain) continue;
    for (size_t i = 0; i < ranks.size(); ++i) {
      const Piece piece = piece_of(i);
      const uint64_t n = length(piece);
      for (size_t t = 0; t < ranks.size(); ++t) {
        if (t == i || n == 0) continue;
        ranks[t].wire_ops->Decode(ranks[t].queue, context.wire, ReceiveArea(ranks[t], chunk, i), n,
                                  ranks[t].out + piece.begin + at);
      }
    }
  }
}

void CheckRanks(std::span<const CollectiveRank> ranks) {
  Check(!ranks.empty() && ranks.size() <= kMaxRanks, "collective: number of ranks");
}

DirectEnd EndOf(const CollectiveRank& rank) {
  return DirectEnd{.device = rank.device, .in = rank.in, .out = rank.out, .queue = rank.queue};
}

// Whether the transport has taken the whole sum upon itself.
bool ReducesItself(const CollectiveContext& context, std::span<const CollectiveRank> ranks,
                   uint64_t n) {
  DirectCollectives* const direct = context.transport->direct();
  if (direct == nullptr || !direct->TakesAllReduce(context.wire, n, ranks.size())) return false;
  std::array<DirectEnd, kMaxRanks> ends;
  for (size_t r = 0; r < ranks.size(); ++r) ends[r] = EndOf(ranks[r]);
  direct->AllReduce(context.wire, std::span(ends).first(ranks.size()), n, *context.ledger);
  return true;
}

// Elements [at, at + n) of a (rows, width) message, scattered to out (rows, out_width) from the
// shard's first column: the rest of a row, whole rows, the beginning of a last one.
void ScatterColumns(const CollectiveRank& rank, const float* values, uint64_t n, uint64_t at,
                    const ColumnShard& shard, uint64_t out_width) {
  uint64_t row = at / shard.width;
  const uint64_t col = at % shard.width;
  const auto scatter = [&](uint64_t first_col, uint64_t width, uint64_t rows) {
    rank.wire_ops->CopyRows(rank.queue, values, width,
                            rank.out + row * out_width + shard.begin + first_col, out_width, width,
                            rows);
    values += width * rows;
    n -= width * rows;
    row += rows;
  };
  if (col > 0) scatter(col, std::min(n, shard.width - col), 1);
  if (n >= shard.width) scatter(0, shard.width, n / shard.width);
  if (n > 0) scatter(0, n, 1);
}

}  // namespace

uint64_t MinCollectiveScratch(size_t ranks) { return (ranks + 2) * 4 * kWireBlock; }

void AllReduce(const CollectiveContext& context, Algorithm algorithm,
               std::span<const CollectiveRank> ranks, uint64_t n) {
  CheckRanks(ranks);
  if (n == 0) return;
  if (algorithm != Algorithm::kTwoShot) {
    if (ReducesItself(context, ranks, n)) return;
    ReduceRange(context, ranks, 0, ranks.size(), 0, n, 0);
    return;
  }
  const size_t count = ranks.size();
  const auto piece_of = [&](size_t i) {
    const uint64_t begin = n * i / count;
    return Piece{ranks[i].out + begin, begin, n * (i + 1) / count};
  };
  for (size_t i = 0; i < count; ++i) {
    const Piece piece = piece_of(i);
    ReduceRange(context, ranks, i, i + 1, piece.begin, piece.end, 0);
  }
  if (count == 1) return;
  ExchangePieces(context, ranks, piece_of);
  for (size_t i = 0; i < count; ++i) {
    const Piece piece = piece_of(i);
    float* own = ranks[i].out + piece.begin;
    ranks[i].wire_ops->Round(ranks[i].queue, context.wire, own, piece.end - piece.begin, own);
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
  ExchangePieces(context, ranks,
                 [&](size_t i) { return Piece{ranks[i].in, cuts[i], cuts[i + 1]}; });
  for (size_t i = 0; i < ranks.size(); ++i) {
    ranks[i].wire_ops->Round(ranks[i].queue, context.wire, ranks[i].in, cuts[i + 1] - cuts[i],
                             ranks[i].out + cuts[i]);
  }
}

void AllGatherColumns(const CollectiveContext& context, std::span<const CollectiveRank> ranks,
                      std::span<const ColumnShard> shards, uint64_t rows, uint64_t out_width) {
  CheckRanks(ranks);
  Check(shards.size() == ranks.size(), "all_gather: one shard a rank");
  // Receive area 0 takes what arrives, area 1 its values.
  const uint64_t chunk = ChunkElems(context, ranks.size() + 1);
  Messages messages(context);
  for (size_t i = 0; i < ranks.size(); ++i) {
    const ColumnShard& shard = shards[i];
    const uint64_t n = rows * shard.width;
    for (uint64_t at = 0; at < n; at += chunk) {
      const uint64_t length = std::min(chunk, n - at);
      const std::byte* wire = WireForm(context, ranks[i], ranks[i].in + at, length);
      for (size_t t = 0; t < ranks.size(); ++t) {
        if (t != i) {
          messages.Add(ranks[i], wire, ranks[t], ReceiveArea(ranks[t], chunk, 0), length);
        }
      }
      messages.Send();
      for (size_t t = 0; t < ranks.size(); ++t) {
        const CollectiveRank& rank = ranks[t];
        auto* values = reinterpret_cast<float*>(ReceiveArea(rank, chunk, 1));
        rank.wire_ops->Decode(rank.queue, context.wire, t == i ? wire : ReceiveArea(rank, chunk, 0),
                              length, values);
        ScatterColumns(rank, values, length, at, shard, out_width);
      }
    }
  }
}

void SendActivations(const CollectiveContext& context, const CollectiveRank& src,
                     const CollectiveRank& dst, uint64_t n) {
  Check(src.in != nullptr && dst.out != nullptr, "send: null buffer");
  DirectCollectives* const direct = context.transport->direct();
  if (direct != nullptr && direct->TakesSend(context.wire, n)) {
    direct->Send(context.wire, EndOf(src), EndOf(dst), n, *context.ledger);
    return;
  }
  Messages messages(context);
  if (context.wire == WireType::kF32) {
    messages.Add(src, reinterpret_cast<const std::byte*>(src.in), dst,
                 reinterpret_cast<std::byte*>(dst.out), n);
    messages.Send();
    return;
  }
  const uint64_t chunk = ChunkElems(context, 2);
  for (uint64_t at = 0; at < n; at += chunk) {
    const uint64_t length = std::min(chunk, n - at);
    const std::byte* wire = WireForm(context, src, src.in + at, length);
    std::byte* received = ReceiveArea(dst, chunk, 0);
    messages.Add(src, wire, dst, received, length);
    messages.Send();
    dst.wire_ops->Decode(dst.queue, context.wire, received, length, dst.out + at);
  }
}

}  // namespace tandem
