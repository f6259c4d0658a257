// One-shot all-reduce of rows that takes the residual and the norm along, in one kernel a rank: it
// sends its partial, waits for the others', adds all in rank order, adds the residual, stores the
// sum and writes the normed row.
//
//   sum  = residual + (wire(in of rank 0) + wire(in of rank 1) + ...)   (rows, width) f32
//   norm = sum / rms(sum) * weights                                     (rows, width) f32
//
// The bits are those of ReduceWords (p2p_kernels.cu), an addition, and kernels/cuda/norms.cu: the
// arithmetic of the wire is the same code, so is that of the norm (row_norm.cuh), with as many
// threads a row. Moves, per rank and peer: the words that ReduceWords moves; besides, residual and
// weights read, sum and norm written, the sum read twice by the threads that wrote it.
//
// A block takes a row at a time, for a norm needs all of it. It sends and reads all words of the
// row at once, through as many channels as the row has chunks of 1,024: so a row costs one wait,
// whatever its width, and it may have up to 16,384 values. Rows beyond those that channels are
// there for follow in turn. Several blocks a row would share the sending (32 KiB of words for 4,096
// values: some 0.3 us at 64 bytes a clock, and as much to read; not measured), but had to hand
// partial sums of squares to one another, and so to wait within a GPU for blocks that might not run
// yet; blocks of one channel each wait for their peer alone. On a q8 wire a row begins with a block
// of 32: several rows want a width that is a multiple of it.
//
// Why nothing is lost: what p2p_kernels.cu says of a channel holds here, with these differences.
//
// 1. The same words.
// 2. The block's threads see words of every one of its channels, for each has a chunk of the row,
//    if a short one; and the row ends at a barrier behind which all of them have read. So p's
//    g + 2 in a channel comes after r's g + 1 in it, stored behind the barrier at r's end of g,
//    whichever of the two kernels either generation was for.
// 3. A sweep writes all words of the slots of all the block's channels, those past the row's end
//    too.
// 4. Rows and width, and with them blocks and channels, are the same for all ranks of a message.
// The
//    channels of a block may stand at different counts (smaller messages use the first ones more):
//    each goes on from its own, and all by the number of rows that the block took.
// 5. The same, with blocks of up to 512 threads, at most 16 of them: a block still waits for blocks
//    of its own number on other ranks alone.
//
// `sum` and `norm` may lie where `in` or the residual do, row upon row: a thread reads its quads of
// both before it stores them, and no norm is written before the barrier.
//
// Minimum hardware: sm_80.
#include "engine/device/cuda/native/row_norm.cuh"
#include "engine/link/cuda/p2p_kernels.h"
#include "engine/link/cuda/p2p_protocol.cuh"

namespace tandem::peer {
namespace {

constexpr uint32_t kQuadsPerChannel = kWordsElems / kQuad;
static_assert(kQuadsPerChannel == kThreads, "a slot holds a quad for each of kThreads");

// Where a block is: its row, and the turns that its channels have taken with it.
struct RowPlace {
  uint64_t begin = 0;  // of the row in (rows, width)
  uint32_t first_channel = 0;
  uint32_t turn = 0;
};

// A quad of the row, and the words that it crosses in.
struct RowQuad {
  uint64_t at = 0;     // in (rows, width)
  bool holds = false;  // whether the row goes so far
  uint32_t generation = 0;
  uint64_t slot = 0;  // in the slots of a pair
  uint32_t lane = 0;
};

__device__ __forceinline__ RowQuad QuadOf(const RowsArgs& args, const RowPlace& place,
                                          uint32_t quad) {
  const uint32_t channel = place.first_channel + quad / kQuadsPerChannel;
  RowQuad result;
  result.at = place.begin + uint64_t{quad} * kQuad;
  result.holds = quad * kQuad < args.width;
  result.generation = args.reduce.generations[channel] + place.turn;
  result.slot = SlotAt(Way::kWords, channel, result.generation);
  result.lane = quad % kQuadsPerChannel;
  return result;
}

// Whole warps go through the quads of all the row's channels, for q8 blocks share a scale.
template <typename Body>
__device__ __forceinline__ void ForQuads(const RowsArgs& args, const RowPlace& place,
                                         const Body& body) {
  const uint32_t quads = args.row_channels * kQuadsPerChannel;
  for (uint32_t q = threadIdx.x; q < quads; q += blockDim.x) body(QuadOf(args, place, q));
}

template <WireType wire>
__device__ __forceinline__ Packed OwnPart(const RowsArgs& args, const RowPlace& place,
                                          const RowQuad& quad) {
  return Pack<wire>(LoadQuad(args.reduce.in, quad.at, place.begin + args.width));
}

template <WireType wire>
__device__ __forceinline__ void SendRow(const RowsArgs& args, const RowPlace& place) {
  ForQuads(args, place, [&](const RowQuad& quad) {
    const Packed own = OwnPart<wire>(args, place, quad);
    for (uint32_t r = 0; r < args.reduce.ranks; ++r) {
      if (r == args.reduce.rank) continue;
      StoreWords<wire>(args.reduce.to[r] + quad.slot, quad.lane, own, quad.generation, quad.holds);
    }
  });
}

// The row's sum with the residual. False where a part never came.
template <WireType wire>
__device__ __forceinline__ bool AddRow(const RowsArgs& args, const RowPlace& place) {
  const ReduceArgs& reduce = args.reduce;
  const uint64_t end = place.begin + args.width;
  bool failed = false;
  ForQuads(args, place, [&](const RowQuad& quad) {
    const Packed own = OwnPart<wire>(args, place, quad);
    Quad sum = {};
    for (uint32_t r = 0; r < reduce.ranks && quad.holds && !failed; ++r) {
      Packed part = own;
      if (r != reduce.rank) {
        failed = !AwaitWords<wire>(reduce.from[r] + quad.slot, quad.lane, quad.generation,
                                   reduce.bound, r, part);
      }
      AddInOrder(sum, Unpack<wire>(part), r == 0);
    }
    if (!quad.holds || failed) return;
    Quad added = LoadQuad(args.residual, quad.at, end);
    AddInOrder(added, sum, false);
    StoreQuad(args.sum, quad.at, end, added);
  });
  return !failed;
}

template <WireType wire, uint32_t kRowThreads>
__global__ void __launch_bounds__(kRowThreads) ReduceRows(const RowsArgs args) {
  const ReduceArgs& reduce = args.reduce;
  if (cuda::BarrierOr(HasGivenUp(reduce.bound))) return;
  const uint32_t thread = threadIdx.x;
  const uint64_t sent = cuda::NowNanos();
  const uint64_t step = uint64_t{gridDim.x} * args.width;
  RowPlace place;
  place.first_channel = blockIdx.x * args.row_channels;
  for (place.begin = uint64_t{blockIdx.x} * args.width; place.begin < reduce.n;
       place.begin += step) {
    ++place.turn;
    const uint32_t stamped = reduce.generations[place.first_channel] + place.turn;
    StampReduce(reduce, Way::kWords, place.first_channel, stamped, sent);
    SendRow<wire>(args, place);
    bool failed = !AddRow<wire>(args, place);
    failed = failed || !PlayLink(reduce, Way::kWords, place.first_channel, stamped,
                                 place.begin + step >= reduce.n);
    // The end of this generation in all the block's channels: all threads have read.
    if (cuda::BarrierOr(failed)) return;
    if (args.weights == nullptr) continue;
    const float* row = args.sum + place.begin;
    const bool aligned = cuda::QuadsAligned(row, args.width);
    // What a thread reads here it has stored itself; what it leaves in `shared` was read before the
    // next row's barrier.
    cuda::NormRow<kRowThreads>(
        cuda::NormTask{args.weights, args.eps, args.width, args.norm + place.begin}, thread,
        reinterpret_cast<float*>(cuda::DynamicShared()),
        [&](uint32_t i, bool) { return cuda::LoadQuad(row, i, args.width, aligned); });
  }
  if (thread < args.row_channels) reduce.generations[place.first_channel + thread] += place.turn;
}

constexpr uint32_t kShort = cuda::RowThreads(1);
constexpr uint32_t kLong = cuda::RowThreads(UINT32_MAX);

}  // namespace

void LaunchReduceRows(WireType wire, uint32_t blocks, void* stream, const RowsArgs& args) {
  const bool is_short = cuda::RowThreads(args.width) == kShort;
  ForWire(wire, [&](auto type) {
    cuda::LaunchPeer("all-reduce with residual and norm",
                     is_short ? ReduceRows<type.value, kShort> : ReduceRows<type.value, kLong>,
                     blocks, is_short ? kShort : kLong, stream, args,
                     is_short ? 0 : kLong / kWarp * static_cast<uint32_t>(sizeof(float)));
  });
}

void VisitRowKernels(void (*visit)(const void* kernel)) {
  const auto show = [visit](auto* kernel) { visit(reinterpret_cast<const void*>(kernel)); };
  for (WireType wire : {WireType::kF32, WireType::kBf16, WireType::kQ8}) {
    ForWire(wire, [&](auto type) {
      show(ReduceRows<type.value, kShort>);
      show(ReduceRows<type.value, kLong>);
    });
  }
}

}  // namespace tandem::peer
