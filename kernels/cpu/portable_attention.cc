// One fold of attention in the portable tier: a page of keys, then of values, is widened to f32
// once for all queries.
#include <cmath>

#include "kernels/cpu/portable.h"
#include "kernels/cpu/tier_folds.h"

namespace tandem::cpu::portable {
namespace {

void WidenAll(const uint16_t* from, uint64_t n, float* to) {
  for (uint64_t i = 0; i < n; ++i) to[i] = Widen(from[i]);
}

// Eight strided chains over head_dim, then their sum: the shape of a vector dot product.
float Dot(const float* a, const float* b, uint32_t n) {
  float lanes[kLanes] = {};
  uint32_t d = 0;
  for (; d + kLanes <= n; d += kLanes) {
    for (uint32_t l = 0; l < kLanes; ++l) lanes[l] += a[d + l] * b[d + l];
  }
  float sum = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
              ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  for (; d < n; ++d) sum += a[d] * b[d];
  return sum;
}

// One query over the positions [first, count) of a page.  keys: widened, in the job's order
void ScorePage(const FoldJob& job, const float* query, const float* keys, uint32_t first,
               uint32_t count, float* scores) {
  const uint64_t hd = job.head_dim;
  if (job.key_order == KeyOrder::kByPosition) {
    for (uint64_t s = first; s < count; ++s) {
      scores[s] = Dot(query, keys + s * hd, job.head_dim) * job.scale;
    }
    return;
  }
  for (uint32_t s = first; s < count; ++s) scores[s] = 0.0f;
  for (uint64_t d = 0; d < hd; ++d) {
    const float* column = keys + d * kPageTokens;
    for (uint32_t s = first; s < count; ++s) scores[s] += query[d] * column[s];
  }
  for (uint32_t s = first; s < count; ++s) scores[s] *= job.scale;
}

// scores [first, count) -> exp(score - m), with m and l.
void Softmax(float* scores, uint32_t first, uint32_t count, float& m, float& l) {
  m = scores[first];
  for (uint32_t i = first + 1; i < count; ++i) m = scores[i] > m ? scores[i] : m;
  l = 0.0f;
  for (uint32_t i = first; i < count; ++i) {
    scores[i] = Exp(scores[i] - m);
    l += scores[i];
  }
}

}  // namespace

void AttendFold(const FoldJob& job) {
  const uint32_t hd = job.head_dim;
  float* scores = job.scratch;  // (n_queries, kAttentionFold)
  float* wide = job.scratch + uint64_t{kMaxQueries} * kAttentionFold;  // a page's keys or values
  const uint32_t most = job.counts[job.n_queries - 1];
  const uint32_t first_page = job.firsts[0] / kPageTokens;

  for (uint32_t page = first_page; page < kFoldPages && InPage(most, page) > 0; ++page) {
    const uint32_t seen = InPage(most, page);
    if (job.key_order == KeyOrder::kByPosition) {
      WidenAll(job.keys[page], uint64_t{seen} * hd, wide);
    } else {
      for (uint64_t d = 0; d < hd; ++d) {
        WidenAll(job.keys[page] + d * kPageTokens, seen, wide + d * kPageTokens);
      }
    }
    for (uint32_t i = 0; i < job.n_queries; ++i) {
      ScorePage(job, job.queries[i], wide, InPage(job.firsts[i], page), InPage(job.counts[i], page),
                scores + uint64_t{i} * kAttentionFold + page * kPageTokens);
    }
  }
  for (uint32_t i = 0; i < job.n_queries; ++i) {
    Softmax(scores + uint64_t{i} * kAttentionFold, job.firsts[i], job.counts[i], job.m[i],
            job.l[i]);
    for (uint32_t d = 0; d < hd; ++d) job.o[uint64_t{i} * hd + d] = 0.0f;
  }
  for (uint32_t page = first_page; page < kFoldPages && InPage(most, page) > 0; ++page) {
    WidenAll(job.values[page], uint64_t{InPage(most, page)} * hd, wide);
    for (uint32_t i = 0; i < job.n_queries; ++i) {
      const float* p = scores + uint64_t{i} * kAttentionFold + page * kPageTokens;
      float* o = job.o + uint64_t{i} * hd;
      for (uint32_t s = InPage(job.firsts[i], page); s < InPage(job.counts[i], page); ++s) {
        for (uint32_t d = 0; d < hd; ++d) o[d] += p[s] * wide[uint64_t{s} * hd + d];
      }
    }
  }
}

void JoinFolds(const FoldState& state, const FoldState& later, uint64_t head_dim) {
  const float m = *later.m > *state.m ? *later.m : *state.m;
  const float before = Exp(*state.m - m);
  const float after = Exp(*later.m - m);
  *state.m = m;
  *state.l = *state.l * before + *later.l * after;
  for (uint64_t d = 0; d < head_dim; ++d) {
    state.o[d] = state.o[d] * before + later.o[d] * after;
  }
}

}  // namespace tandem::cpu::portable

namespace tandem::cpu {

const Tier& PortableTier() {
  static constexpr Tier kTier = {
      .name = "portable",
      .supported = [] { return true; },
      .lanes = portable::kLanes,
      .bf16_pairs = false,
      .quantize = portable::Quantize,
      .to_bf16 = nullptr,
      .matmul_int8 = portable::MatMulInt8,
      .matmul_f32 = portable::MatMulF32,
      .matmul_bf16 = nullptr,
      .rms_norm = portable::RmsNorm,
      .add = portable::Add,
      .swiglu = portable::SwiGlu,
      .rotate = portable::Rotate,
      .to_f16 = portable::ToF16,
      .attend_fold = portable::AttendFold,
      .join_folds = portable::JoinFolds,
  };
  return kTier;
}

}  // namespace tandem::cpu
