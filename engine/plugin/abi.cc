#include "engine/plugin/abi.h"

namespace tandem {
namespace {

template <typename E>
uint32_t FromOne(E value) {
  return static_cast<uint32_t>(value) + 1;
}

template <typename E>
std::optional<E> InRange(uint32_t value, E last) {
  if (value > static_cast<uint32_t>(last)) return std::nullopt;
  return static_cast<E>(value);
}

// The numbers below are frozen; the engine's enums are not. These hold them together.
static_assert(static_cast<int>(BlockKind::kEmbed) + 1 == TANDEM_BLOCK_EMBED);
static_assert(static_cast<int>(BlockKind::kAttention) + 1 == TANDEM_BLOCK_ATTENTION);
static_assert(static_cast<int>(BlockKind::kMlp) + 1 == TANDEM_BLOCK_MLP);
static_assert(static_cast<int>(BlockKind::kMoe) + 1 == TANDEM_BLOCK_MOE);
static_assert(static_cast<int>(BlockKind::kHead) + 1 == TANDEM_BLOCK_HEAD);
static_assert(static_cast<int>(LinkKind::kIdeal) + 1 == TANDEM_LINK_IDEAL);
static_assert(static_cast<int>(LinkKind::kNvlink) + 1 == TANDEM_LINK_NVLINK);
static_assert(static_cast<int>(LinkKind::kPcieP2p) + 1 == TANDEM_LINK_PCIE_P2P);
static_assert(static_cast<int>(LinkKind::kHostStaged) + 1 == TANDEM_LINK_HOST_STAGED);
static_assert(static_cast<int>(LinkKind::kLocal) + 1 == TANDEM_LINK_LOCAL);
static_assert(static_cast<int>(WireType::kF32) + 1 == TANDEM_WIRE_F32);
static_assert(static_cast<int>(WireType::kBf16) + 1 == TANDEM_WIRE_BF16);
static_assert(static_cast<int>(WireType::kQ8) + 1 == TANDEM_WIRE_Q8);
static_assert(static_cast<int>(PathKind::kAuto) == TANDEM_PATH_AUTO);
static_assert(static_cast<int>(PathKind::kLocal) == TANDEM_PATH_LOCAL);
static_assert(static_cast<int>(PathKind::kCopy) == TANDEM_PATH_COPY);
static_assert(static_cast<int>(PathKind::kP2p) == TANDEM_PATH_P2P);
static_assert(static_cast<int>(PathKind::kHostStaged) == TANDEM_PATH_HOST_STAGED);
static_assert(static_cast<int>(PathKind::kNccl) == TANDEM_PATH_NCCL);
static_assert(static_cast<int>(ProgramKind::kPrefill) + 1 == TANDEM_PROGRAM_PREFILL);
static_assert(static_cast<int>(ProgramKind::kDecode) + 1 == TANDEM_PROGRAM_DECODE);
static_assert(static_cast<int>(MicrobatchKind::kNone) == TANDEM_MICROBATCH_NONE);
static_assert(static_cast<int>(MicrobatchKind::kByChunk) == TANDEM_MICROBATCH_BY_CHUNK);
static_assert(static_cast<int>(MicrobatchKind::kBySequence) == TANDEM_MICROBATCH_BY_SEQUENCE);
static_assert(static_cast<int>(Algorithm::kOneShot) == TANDEM_ALGORITHM_ONE_SHOT);
static_assert(static_cast<int>(Algorithm::kTwoShot) == TANDEM_ALGORITHM_TWO_SHOT);
static_assert(static_cast<int>(QueueKind::kCompute) + 1 == TANDEM_QUEUE_COMPUTE);
static_assert(static_cast<int>(QueueKind::kCopyIn) + 1 == TANDEM_QUEUE_COPY_IN);
static_assert(static_cast<int>(QueueKind::kCopyOut) + 1 == TANDEM_QUEUE_COPY_OUT);
static_assert(static_cast<int>(QueueKind::kComm) + 1 == TANDEM_QUEUE_COMM);

}  // namespace

uint32_t AbiBlockKind(BlockKind kind) { return FromOne(kind); }
uint32_t AbiLinkKind(LinkKind kind) { return FromOne(kind); }
uint32_t AbiWire(WireType wire) { return FromOne(wire); }
uint32_t AbiPath(PathKind path) { return static_cast<uint32_t>(path); }

std::optional<OpKind> OpKindFromAbi(uint32_t kind) {
  switch (kind) {
    case TANDEM_OP_RUN:
      return OpKind::kRun;
    case TANDEM_OP_NORM:
      return OpKind::kNorm;
    case TANDEM_OP_ADD:
      return OpKind::kAdd;
    case TANDEM_OP_SAMPLE:
      return OpKind::kSample;
    case TANDEM_OP_ALL_REDUCE:
      return OpKind::kAllReduce;
    case TANDEM_OP_REDUCE_SCATTER:
      return OpKind::kReduceScatter;
    case TANDEM_OP_ALL_GATHER:
      return OpKind::kAllGather;
    case TANDEM_OP_TRANSFER:
      return OpKind::kTransfer;
    case TANDEM_OP_FETCH:
      return OpKind::kFetch;
    case TANDEM_OP_KV_MOVE:
      return OpKind::kKvMove;
    default:
      return std::nullopt;
  }
}

std::optional<ProgramKind> ProgramKindFromAbi(uint32_t kind) {
  if (kind == TANDEM_PROGRAM_PREFILL) return ProgramKind::kPrefill;
  if (kind == TANDEM_PROGRAM_DECODE) return ProgramKind::kDecode;
  return std::nullopt;
}

std::optional<MicrobatchKind> MicrobatchKindFromAbi(uint32_t kind) {
  return InRange(kind, MicrobatchKind::kBySequence);
}
std::optional<PathKind> PathKindFromAbi(uint32_t path) { return InRange(path, PathKind::kNccl); }
std::optional<Algorithm> AlgorithmFromAbi(uint32_t algorithm) {
  return InRange(algorithm, Algorithm::kTwoShot);
}
std::optional<QueueKind> QueueKindFromAbi(uint32_t queue) {
  return InRange(queue - 1, QueueKind::kComm);
}

std::string CleanText(const char* text, size_t longest) {
  if (text == nullptr) return "(null)";
  std::string clean(text, strnlen(text, longest));
  for (char& c : clean) {
    const auto u = static_cast<unsigned char>(c);
    if ((u < 0x20 && c != '\n' && c != '\t') || u == 0x7f) c = '?';
  }
  return clean;
}

}  // namespace tandem
