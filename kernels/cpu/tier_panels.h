// What the tiers do alike with panels, whatever their vectors: where the parts of a quantised block
// lie, the walk over a job's panels, and the choice of a kernel by weight type. The arithmetic is
// each tier's own.
//
// Internal linkage, for every file that includes it has a copy compiled with its own instructions
// (tier.h says why).
#pragma once

#include "kernels/cpu/panel.h"
#include "kernels/cpu/tier.h"

namespace tandem::cpu {
namespace {

// FormatOf in bytes of a panel of Lanes rows.
template <DType T, uint32_t Lanes>
struct LanesFormat {
  static constexpr PanelFormat k = FormatOf(T);
  static constexpr uint64_t kGroups = k.groups;  // in a block
  static constexpr uint64_t kBytes = uint64_t{k.block_bytes} * Lanes;
  static constexpr uint64_t kGroupsAt = uint64_t{k.groups_at} * Lanes;
  static constexpr uint64_t kGroupBytes = uint64_t{k.group_bytes} * Lanes;
  static constexpr uint64_t kFieldsAt = uint64_t{k.fields_at} * Lanes;
  static constexpr bool kSixteens = T == DType::kQ6_K;  // a scale every 16 columns
};

// One panel's share of a job: the wanted lanes and where the first of them goes for token 0.
struct PanelSpan {
  const std::byte* at;
  uint64_t lane_begin;
  uint64_t lane_end;
  float* y;  // of lane_begin
};

// Walks the panels of a job.
template <uint32_t Lanes>
class LanesWalk {
 public:
  [[gnu::always_inline]] explicit LanesWalk(const PanelJob& job)
      : job_(job), panel_(job.panels), row_(job.row_begin), y_(job.y) {}
  [[gnu::always_inline]] bool Next(PanelSpan& span) {
    if (row_ >= job_.row_end) return false;
    const uint64_t first = row_ / Lanes * Lanes;
    const uint64_t end = first + Lanes < job_.row_end ? first + Lanes : job_.row_end;
    span = PanelSpan{panel_, row_ - first, end - first, y_};
    y_ += end - row_;
    row_ = end;
    panel_ += job_.panel_stride;
    return true;
  }

 private:
  const PanelJob& job_;
  const std::byte* panel_;
  uint64_t row_;
  float* y_;
};

// The cache lines of [at, at + bytes), which may lie past the end of the matrix: a prefetch does
// not fault.
[[gnu::always_inline]] inline void Prefetch(const std::byte* at, uint64_t bytes) {
  for (uint64_t line = 0; line < bytes; line += 64) __builtin_prefetch(at + line);
}

// A weight type known to the compiler: decltype(t)::value.
template <DType T>
struct TypeIs {
  static constexpr DType value = T;
};

// body(TypeIs<type>()); cpu_ops.cc sends such products no other types.
template <typename Body>
[[gnu::always_inline]] inline void WithQuantizedType(DType type, Body body) {
  switch (type) {
    case DType::kQ8_0:
      return body(TypeIs<DType::kQ8_0>());
    case DType::kQ4_0:
      return body(TypeIs<DType::kQ4_0>());
    case DType::kQ4_1:
      return body(TypeIs<DType::kQ4_1>());
    case DType::kQ5_0:
      return body(TypeIs<DType::kQ5_0>());
    case DType::kQ5_1:
      return body(TypeIs<DType::kQ5_1>());
    case DType::kQ4_K:
      return body(TypeIs<DType::kQ4_K>());
    case DType::kQ5_K:
      return body(TypeIs<DType::kQ5_K>());
    case DType::kQ6_K:
      return body(TypeIs<DType::kQ6_K>());
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      __builtin_trap();
  }
}

template <typename Body>
[[gnu::always_inline]] inline void WithType(DType type, Body body) {
  switch (type) {
    case DType::kF32:
      return body(TypeIs<DType::kF32>());
    case DType::kF16:
      return body(TypeIs<DType::kF16>());
    case DType::kBF16:
      return body(TypeIs<DType::kBF16>());
    default:
      return WithQuantizedType(type, body);
  }
}

}  // namespace
}  // namespace tandem::cpu
