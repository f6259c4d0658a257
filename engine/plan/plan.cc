// Names of the plan's enums, wire sizes, and the plan's hash. See plan.h.
#include "engine/plan/plan.h"

#include <fmt/format.h>

#include <array>

#include "engine/base/check.h"
#include "engine/base/sha256.h"
#include "engine/plan/text.h"

namespace tandem {

const char* ToString(OpKind kind) {
  switch (kind) {
    case OpKind::kRun:
      return "run";
    case OpKind::kNorm:
      return "norm";
    case OpKind::kAdd:
      return "add";
    case OpKind::kSample:
      return "sample";
    case OpKind::kAllReduce:
      return "all_reduce";
    case OpKind::kReduceScatter:
      return "reduce_scatter";
    case OpKind::kAllGather:
      return "all_gather";
    case OpKind::kTransfer:
      return "transfer";
    case OpKind::kFetch:
      return "fetch";
    case OpKind::kKvMove:
      return "kv_move";
    case OpKind::kReservedAllToAll:
      return "all_to_all";
    case OpKind::kReservedKvShard:
      return "kv_shard";
  }
  return "unknown";
}

const char* ToString(ProgramKind kind) {
  switch (kind) {
    case ProgramKind::kPrefill:
      return "prefill";
    case ProgramKind::kDecode:
      return "decode";
    case ProgramKind::kReservedDraft:
      return "draft";
    case ProgramKind::kReservedVerify:
      return "verify";
  }
  return "unknown";
}

const char* ToString(MicrobatchKind kind) {
  switch (kind) {
    case MicrobatchKind::kNone:
      return "none";
    case MicrobatchKind::kByChunk:
      return "by_chunk";
    case MicrobatchKind::kBySequence:
      return "by_sequence";
  }
  return "unknown";
}

const char* ToString(QueueKind kind) {
  switch (kind) {
    case QueueKind::kCompute:
      return "compute";
    case QueueKind::kCopyIn:
      return "copy_in";
    case QueueKind::kCopyOut:
      return "copy_out";
    case QueueKind::kComm:
      return "comm";
  }
  return "unknown";
}

const char* ToString(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::kNone:
      return "none";
    case Algorithm::kOneShot:
      return "one_shot";
    case Algorithm::kTwoShot:
      return "two_shot";
  }
  return "unknown";
}

const char* ToString(WireType wire) {
  switch (wire) {
    case WireType::kF32:
      return "f32";
    case WireType::kBf16:
      return "bf16";
    case WireType::kQ8:
      return "q8";
  }
  return "unknown";
}

std::optional<WireType> WireTypeFromName(std::string_view name) {
  for (WireType wire : {WireType::kF32, WireType::kBf16, WireType::kQ8}) {
    if (name == ToString(wire)) return wire;
  }
  return std::nullopt;
}

Bytes WireBytes(WireType wire, uint64_t n) {
  constexpr uint64_t kBlock = 32;  // elements that share one 16-bit scale
  switch (wire) {
    case WireType::kF32:
      return Bytes{4 * n};
    case WireType::kBf16:
      return Bytes{2 * n};
    case WireType::kQ8:
      return Bytes{n + 2 * ((n + kBlock - 1) / kBlock)};
  }
  Check(false, "a wire type");
  return {};
}

QueueKind DefaultQueue(OpKind kind) {
  switch (kind) {
    case OpKind::kRun:
    case OpKind::kNorm:
    case OpKind::kAdd:
    case OpKind::kSample:
      return QueueKind::kCompute;
    case OpKind::kFetch:
      return QueueKind::kCopyIn;
    case OpKind::kKvMove:
      return QueueKind::kCopyOut;
    default:
      return QueueKind::kComm;
  }
}

const Program& Plan::program(ProgramKind kind, uint32_t lane) const {
  for (const Program& program : programs) {
    if (program.kind == kind && program.lane == lane) return program;
  }
  Check(false, fmt::format("the plan has a {} program of lane {}", ToString(kind), lane));
  return programs.front();
}

std::string PlanHash(const Plan& plan) {
  return Sha256Hex(std::string_view(FormatPlan(plan, PlanText::kHashed)));
}

}  // namespace tandem
