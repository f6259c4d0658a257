// Rotation, the KV pages and attention of every back end, against the oracle and against properties
// that need none.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "tests/kernels/kernel_test_support.h"

namespace tandem {
namespace {

struct HeadShape {
  uint32_t q_heads, kv_heads, head_dim;
};
constexpr HeadShape kHeadShapes[] = {{9, 3, 64}, {4, 4, 32}, {8, 1, 128}, {2, 2, 12}, {40, 1, 16}};

// Pages for some sequences, handed out in a scrambled order and filled with NaN: what attention
// reads beyond a sequence's positions shows.
struct Cache {
  std::vector<uint16_t> memory;
  std::vector<std::vector<int32_t>> pages;  // of each sequence
  KvView view;

  Cache(const HeadShape& shape, const std::vector<uint32_t>& lengths) {
    const uint64_t page_elems = uint64_t{2} * shape.kv_heads * kPageTokens * shape.head_dim;
    int32_t count = 0;
    for (uint32_t length : lengths) {
      std::vector<int32_t> own((length + kPageTokens - 1) / kPageTokens);
      std::iota(own.begin(), own.end(), count);
      std::reverse(own.begin(), own.end());
      count += static_cast<int32_t>(own.size());
      pages.push_back(own);
    }
    memory.assign(page_elems * static_cast<uint64_t>(count), 0x7e00);
    view = {reinterpret_cast<std::byte*>(memory.data()), page_elems * 2, shape.kv_heads,
            shape.head_dim};
  }
};

struct Step {
  HeadShape shape;
  std::vector<float> q, k, v;
};

Step MakeStep(const HeadShape& shape, uint32_t rows, uint64_t seed) {
  Step step{shape, {}, {}, {}};
  step.q = RandomFloats(uint64_t{rows} * shape.q_heads * shape.head_dim, seed, 3.0f);
  step.k = RandomFloats(uint64_t{rows} * shape.kv_heads * shape.head_dim, seed + 1, 2.0f);
  step.v = RandomFloats(uint64_t{rows} * shape.kv_heads * shape.head_dim, seed + 2);
  return step;
}

RopeParams RopeFor(const HeadShape& shape) {
  return RopeParams{.rope_dim = shape.head_dim, .theta = 10000.0f};
}

class AttentionTest : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    bench_ = MakeBench(GetParam());
    if (!bench_.ops) GTEST_SKIP() << bench_.missing;
  }
  Ops& ops() { return *bench_.ops; }
  Bench bench_;
};

// A sequence of `total` positions computed in chunks that end at `ends`; returns all outputs.
std::vector<float> RunChunks(Ops& ops, const Step& step, const std::vector<uint32_t>& ends,
                             Cache& cache, uint32_t window = 0) {
  const HeadShape& s = step.shape;
  const uint64_t q_width = uint64_t{s.q_heads} * s.head_dim;
  const uint64_t kv_width = uint64_t{s.kv_heads} * s.head_dim;
  std::vector<float> q = step.q, k = step.k, out = Poison(step.q.size());
  uint32_t start = 0;
  for (uint32_t end : ends) {
    const SequenceRows rows{0, end - start, start, cache.pages[0].data()};
    ops.RopeAndStore(q.data() + start * q_width, k.data() + start * kv_width,
                     step.v.data() + start * kv_width, s.q_heads, RopeFor(s), {&rows, 1},
                     cache.view);
    ops.Attention(q.data() + start * q_width, s.q_heads, window, {&rows, 1}, cache.view,
                  out.data() + start * q_width);
    start = end;
  }
  return out;
}

// exp and the sums round; values are below 1 and weights sum to 1. Scores of size |q||k|/sqrt(hd)
// carry hd roundings each, which move the weights by as much.
// Half: hd products of q and k, some 2 in the root mean square, are off by 2^-11 / sqrt(3) each and
// independent, and sqrt(hd) divides their sum: 6 sigma of it are 7 * 2^-11. A weight is off by
// 2^-11.
double Tolerance(const Backend& backend, const HeadShape& shape) {
  const double score = 3.0 * 2.0 * std::sqrt(static_cast<double>(shape.head_dim));
  const double split = 0x1p-24 * (score * 8.0 + 64.0);
  return backend.attention == AttentionPrecision::kHalf ? split + 0x1p-11 * 8.0 : split;
}

TEST_P(AttentionTest, MatchesTheReferenceAcrossPagesAndFolds) {
  const std::unique_ptr<Ops> ref = MakeRefOps(GetParam().activations);
  for (const HeadShape& shape : kHeadShapes) {
    SCOPED_TRACE(::testing::Message()
                 << shape.q_heads << " over " << shape.kv_heads << " heads of " << shape.head_dim);
    const uint32_t total = shape.kv_heads == 3 ? 530 : 270;
    const Step step = MakeStep(shape, total, 100);
    Cache cache(shape, {total}), plain(shape, {total});
    const std::vector<float> got = RunChunks(ops(), step, {total}, cache);
    const std::vector<float> want = RunChunks(*ref, step, {total}, plain);
    EXPECT_TRUE(Near(got, want, uint64_t{shape.q_heads} * shape.head_dim,
                     [&](size_t) { return Tolerance(GetParam(), shape); }));
  }
}

TEST_P(AttentionTest, HalfIsAnotherResultThanSplit) {
  if (GetParam().attention == AttentionPrecision::kSplit) GTEST_SKIP() << "split itself";
  const HeadShape shape{3, 3, 64};
  const Step step = MakeStep(shape, 100, 150);
  Cache cache(shape, {100}), plain(shape, {100});
  const Bench split = MakeBench({GetParam().tier, GetParam().activations});
  EXPECT_FALSE(Same(RunChunks(ops(), step, {100}, cache), RunChunks(*split.ops, step, {100}, plain),
                    3 * 64));
}

TEST_P(AttentionTest, ChunkingDoesNotChangeABit) {
  const HeadShape shape{6, 2, 32};
  const uint32_t total = 530;
  const Step step = MakeStep(shape, total, 200);
  Cache whole(shape, {total});
  const std::vector<float> want = RunChunks(ops(), step, {total}, whole);
  std::vector<uint32_t> one_by_one(30);
  std::iota(one_by_one.begin(), one_by_one.end(), total - 29);
  for (const std::vector<uint32_t>& ends :
       {std::vector<uint32_t>{1, 63, 64, 65, 130, 255, 256, 257, 511, 512, 513, 530},
        std::vector<uint32_t>{300, 301, 530}, one_by_one}) {
    Cache cache(shape, {total});
    EXPECT_TRUE(Same(RunChunks(ops(), step, ends, cache), want, 6 * 32));
  }
}

TEST_P(AttentionTest, WindowsMatchTheReference) {
  const std::unique_ptr<Ops> ref = MakeRefOps(GetParam().activations);
  for (const HeadShape& shape : {HeadShape{3, 3, 64}, HeadShape{6, 2, 32}, HeadShape{2, 2, 12}}) {
    const uint32_t total = 530;
    const Step step = MakeStep(shape, total, 800);
    for (uint32_t window : {1u, 2u, 5u, 63u, 64u, 100u, 255u, 256u, 257u, 400u}) {
      SCOPED_TRACE(::testing::Message()
                   << shape.q_heads << " over " << shape.kv_heads << " heads, window " << window);
      Cache cache(shape, {total}), plain(shape, {total});
      const std::vector<float> got = RunChunks(ops(), step, {total}, cache, window);
      const std::vector<float> want = RunChunks(*ref, step, {total}, plain, window);
      EXPECT_TRUE(Near(got, want, uint64_t{shape.q_heads} * shape.head_dim,
                       [&](size_t) { return Tolerance(GetParam(), shape); }));
    }
  }
}

TEST_P(AttentionTest, ChunkingAWindowDoesNotChangeABit) {
  const HeadShape shape{6, 2, 32};
  const uint32_t total = 530;
  const Step step = MakeStep(shape, total, 900);
  for (uint32_t window : {3u, 70u, 300u}) {
    Cache whole(shape, {total});
    const std::vector<float> want = RunChunks(ops(), step, {total}, whole, window);
    for (const std::vector<uint32_t>& ends :
         {std::vector<uint32_t>{1, 2, 64, 130, 255, 256, 257, 325, 326, 511, 512, 513, 530},
          std::vector<uint32_t>{300, 301, 529, 530}}) {
      Cache cache(shape, {total});
      EXPECT_TRUE(Same(RunChunks(ops(), step, ends, cache, window), want, 6 * 32)) << window;
    }
  }
}

TEST_P(AttentionTest, AWindowWiderThanThePastChangesNothing) {
  const HeadShape shape{6, 2, 32};
  const Step step = MakeStep(shape, 300, 1000);
  Cache all(shape, {300}), wide(shape, {300}), exact(shape, {300}), narrow(shape, {300});
  const std::vector<float> want = RunChunks(ops(), step, {300}, all);
  EXPECT_TRUE(Same(RunChunks(ops(), step, {300}, wide, UINT32_MAX), want, 6 * 32));
  EXPECT_TRUE(Same(RunChunks(ops(), step, {300}, exact, 300), want, 6 * 32));
  EXPECT_FALSE(Same(RunChunks(ops(), step, {300}, narrow, 299), want, 6 * 32));
}

TEST_P(AttentionTest, WhatLiesBeforeTheWindowIsNotRead) {
  const HeadShape shape{6, 2, 32};
  const uint32_t total = 530, window = 69;
  const Step step = MakeStep(shape, total, 1100);
  Cache cache(shape, {total});
  const std::vector<float> out = RunChunks(ops(), step, {total}, cache, window);
  // NaN over every position that the last row does not see.
  for (uint32_t position = 0; position + window < total; ++position) {
    const uint64_t page = static_cast<uint64_t>(cache.pages[0][position / kPageTokens]);
    uint16_t* base = cache.memory.data() + page * cache.view.stride / 2;
    for (uint32_t h = 0; h < 4; ++h) {
      const KeyOrder order = h < 2 ? ops().key_order() : KeyOrder::kByPosition;
      for (uint32_t d = 0; d < 32; ++d) {
        base[h * kPageTokens * 32 + KeyAt(order, 32, position % kPageTokens, d)] = 0x7e00;
      }
    }
  }
  const uint64_t width = 6 * 32;
  const SequenceRows row{0, 1, total - 1, cache.pages[0].data()};
  std::vector<float> q(step.q.end() - width, step.q.end()), got = Poison(width);
  std::vector<float> k(step.k.end() - 64, step.k.end());
  ops().RopeAndStore(q.data(), k.data(), step.v.data() + (total - 1) * 64, 6, RopeFor(shape),
                     {&row, 1}, cache.view);
  ops().Attention(q.data(), 6, window, {&row, 1}, cache.view, got.data());
  EXPECT_TRUE(Same(got, {out.end() - width, out.end()}, width));
}

TEST_P(AttentionTest, SequencesInOneCallDoNotTouchEachOther) {
  for (const HeadShape& shape : {HeadShape{9, 3, 64}, HeadShape{4, 4, 32}}) {
    const uint64_t q_width = uint64_t{shape.q_heads} * shape.head_dim;
    const uint64_t kv_width = uint64_t{shape.kv_heads} * shape.head_dim;
    const std::vector<uint32_t> lengths = {300, 64, 1, 257, 90};
    const std::vector<uint32_t> new_rows = {1, 3, 1, 20, 90};
    Cache together(shape, lengths);
    std::vector<std::vector<float>> alone;
    std::vector<float> q, k, v;
    std::vector<SequenceRows> rows;
    for (size_t i = 0; i < lengths.size(); ++i) {
      const Step step = MakeStep(shape, lengths[i], 300 + 10 * i);
      Cache cache(shape, {lengths[i]});
      const uint32_t start = lengths[i] - new_rows[i];
      std::vector<uint32_t> ends = {lengths[i]};
      if (start > 0) ends.insert(ends.begin(), start);
      const std::vector<float> out = RunChunks(ops(), step, ends, cache);
      alone.emplace_back(out.begin() + start * q_width, out.end());
      // The past goes into the common cache by itself, the last rows in one call for all.
      std::vector<float> past_q = step.q, past_k = step.k;
      const SequenceRows past{0, start, 0, together.pages[i].data()};
      ops().RopeAndStore(past_q.data(), past_k.data(), step.v.data(), shape.q_heads, RopeFor(shape),
                         {&past, 1}, together.view);
      rows.push_back({static_cast<uint32_t>(q.size() / q_width), new_rows[i], start,
                      together.pages[i].data()});
      q.insert(q.end(), step.q.begin() + start * q_width, step.q.end());
      k.insert(k.end(), step.k.begin() + start * kv_width, step.k.end());
      v.insert(v.end(), step.v.begin() + start * kv_width, step.v.end());
    }
    std::vector<float> out = Poison(q.size());
    ops().RopeAndStore(q.data(), k.data(), v.data(), shape.q_heads, RopeFor(shape), rows,
                       together.view);
    ops().Attention(q.data(), shape.q_heads, 0, rows, together.view, out.data());
    for (size_t i = 0; i < rows.size(); ++i) {
      const auto begin = out.begin() + rows[i].first_row * q_width;
      const std::vector<float> part(begin, begin + new_rows[i] * q_width);
      EXPECT_TRUE(Same(part, alone[i], q_width)) << "sequence " << i;
    }
  }
}

TEST_P(AttentionTest, OnePositionGivesItsOwnValueInF16) {
  const HeadShape shape{4, 2, 32};
  const Step step = MakeStep(shape, 1, 400);
  Cache cache(shape, {1});
  const std::vector<float> out = RunChunks(ops(), step, {1}, cache);
  for (uint32_t h = 0; h < 4; ++h) {
    for (uint32_t d = 0; d < 32; ++d) {
      EXPECT_EQ(out[h * 32 + d], F16ToF32(F32ToF16(step.v[h / 2 * 32 + d])));
    }
  }
}

TEST_P(AttentionTest, LargeScoresDoNotOverflow) {
  const HeadShape shape{2, 1, 32};
  const uint32_t total = 300;
  Step step = MakeStep(shape, total, 500);
  for (float& value : step.q) value *= 1000.0f;
  Cache cache(shape, {total});
  for (float value : RunChunks(ops(), step, {total}, cache)) {
    ASSERT_TRUE(std::isfinite(value) && std::abs(value) <= 1.001f) << value;
  }
}

TEST_P(AttentionTest, RotatesBothPairingsAsTheReferenceDoes) {
  const std::unique_ptr<Ops> ref = MakeRefOps(GetParam().activations);
  const HeadShape shape{6, 2, 64};
  for (bool interleaved : {true, false}) {
    for (uint32_t rope_dim : {64u, 32u, 20u, 2u}) {
      const RopeParams rope{
          .rope_dim = rope_dim, .theta = 100000.0f, .scale = 2.0f, .interleaved = interleaved};
      const Step step = MakeStep(shape, 7, 600);
      Cache cache(shape, {4100}), plain(shape, {4100});
      const SequenceRows rows{0, 7, 4090, cache.pages[0].data()};
      const SequenceRows ref_rows{0, 7, 4090, plain.pages[0].data()};
      std::vector<float> q = step.q, k = step.k, want_q = step.q, want_k = step.k;
      ops().RopeAndStore(q.data(), k.data(), step.v.data(), 6, rope, {&rows, 1}, cache.view);
      ref->RopeAndStore(want_q.data(), want_k.data(), step.v.data(), 6, rope, {&ref_rows, 1},
                        plain.view);
      // Each output is two products of values below 3 and one sum.
      EXPECT_TRUE(Near(q, want_q, 6 * 64, [](size_t) { return 0x1p-24 * 12.0; }));
      EXPECT_TRUE(Near(k, want_k, 2 * 64, [](size_t) { return 0x1p-24 * 12.0; }));
      // What lies in the pages is k as rotated and v as given, rounded to f16, and nothing else.
      size_t written = 0;
      for (uint16_t bits : cache.memory) written += bits != 0x7e00;
      EXPECT_EQ(written, size_t{7} * 2 * 2 * 64);
      for (uint32_t i = 0; i < 7; ++i) {
        const uint32_t position = 4090 + i;
        const uint64_t page = static_cast<uint64_t>(rows.pages[position / kPageTokens]);
        const uint16_t* base = cache.memory.data() + page * cache.view.stride / 2;
        for (uint32_t h = 0; h < 2; ++h) {
          const uint16_t* keys = base + h * kPageTokens * 64;
          const uint16_t* value = keys + (2 * kPageTokens + position % kPageTokens) * 64;
          for (uint32_t d = 0; d < 64; ++d) {
            const uint64_t at = KeyAt(ops().key_order(), 64, position % kPageTokens, d);
            ASSERT_EQ(keys[at], F32ToF16(k[(i * 2 + h) * 64 + d]));
            ASSERT_EQ(value[d], F32ToF16(step.v[(i * 2 + h) * 64 + d]));
          }
        }
      }
    }
  }
}

// q of four rows from `start` on, rotated.
std::vector<float> Rotated(Ops& ops, const Step& step, uint32_t start, const RopeParams& rope) {
  Cache cache(step.shape, {start + 4});
  std::vector<float> q = step.q, k = step.k;
  const SequenceRows rows{0, 4, start, cache.pages[0].data()};
  ops.RopeAndStore(q.data(), k.data(), step.v.data(), step.shape.q_heads, rope, {&rows, 1},
                   cache.view);
  return q;
}

TEST_P(AttentionTest, GivenFrequenciesAndMagnitudeTakeTheFormulasPlace) {
  const std::unique_ptr<Ops> ref = MakeRefOps(GetParam().activations);
  const HeadShape shape{2, 1, 48};
  const Step step = MakeStep(shape, 4, 750);
  std::vector<double> formula, given;
  for (int i = 0; i < 20; ++i) {
    formula.push_back(std::pow(10000.0, -2.0 * i / 40) / 4.0);
    given.push_back(0.7 / (1 + i));
  }
  for (bool interleaved : {true, false}) {
    RopeParams rope{.rope_dim = 40, .theta = 1e4f, .scale = 4.0f, .interleaved = interleaved};
    const std::vector<float> want = Rotated(ops(), step, 1000, rope);
    rope.frequencies = formula;
    EXPECT_TRUE(Same(Rotated(ops(), step, 1000, rope), want, 96));
    rope.frequencies = given;
    rope.magnitude = 1.25f;
    const std::vector<float> got = Rotated(ops(), step, 1000, rope);
    EXPECT_TRUE(Near(got, Rotated(*ref, step, 1000, rope), 96, [](size_t) { return 0x1p-20; }));
    // A rotation by any angle keeps a pair's length, the magnitude scales it; the rest stays.
    for (uint32_t i = 0; i < 8 * 20; ++i) {
      const uint32_t head = i / 20 * 48, pair = i % 20;
      const uint32_t a = head + (interleaved ? 2 * pair : pair);
      const uint32_t b = interleaved ? a + 1 : a + 20;
      EXPECT_NEAR(std::hypot(got[a], got[b]), 1.25f * std::hypot(step.q[a], step.q[b]), 1e-5);
    }
    for (uint32_t i = 40; i < 48; ++i) EXPECT_EQ(got[i], step.q[i]);
  }
}

TEST_P(AttentionTest, AngleCacheFollowsItsParameters) {
  const HeadShape shape{2, 1, 32};
  const Step step = MakeStep(shape, 4, 760);
  const std::vector<double> one(16, 0.5), other(16, 0.25);
  RopeParams rope{.rope_dim = 32};
  const std::vector<float> plain = Rotated(ops(), step, 10, rope);
  rope.frequencies = one;
  const std::vector<float> first = Rotated(ops(), step, 10, rope);
  EXPECT_FALSE(Same(first, plain, 64));
  rope.frequencies = other;
  EXPECT_FALSE(Same(Rotated(ops(), step, 10, rope), first, 64));
  rope.frequencies = one;
  rope.magnitude = 2.0f;
  EXPECT_FALSE(Same(Rotated(ops(), step, 10, rope), first, 64));
  rope.magnitude = 1.0f;
  EXPECT_TRUE(Same(Rotated(ops(), step, 10, rope), first, 64));
  rope.frequencies = {};
  EXPECT_TRUE(Same(Rotated(ops(), step, 10, rope), plain, 64));
}

TEST_P(AttentionTest, AngleCacheFollowsItsRows) {
  const HeadShape shape{2, 1, 32};
  const Step step = MakeStep(shape, 4, 700);
  Cache cache(shape, {200});
  const auto rotate = [&](uint32_t start, float theta) {
    std::vector<float> q = step.q, k = step.k;
    const SequenceRows rows{0, 4, start, cache.pages[0].data()};
    const RopeParams rope{.rope_dim = 32, .theta = theta};
    ops().RopeAndStore(q.data(), k.data(), step.v.data(), 2, rope, {&rows, 1}, cache.view);
    return q;
  };
  const std::vector<float> first = rotate(10, 1e4f);
  const std::vector<float> other = rotate(50, 1e4f);
  EXPECT_FALSE(Same(other, first, 64));
  EXPECT_FALSE(Same(rotate(10, 5e5f), first, 64));
  EXPECT_TRUE(Same(rotate(10, 1e4f), first, 64));
  EXPECT_TRUE(Same(rotate(50, 1e4f), other, 64));
}

INSTANTIATE_TEST_SUITE_P(Backends, AttentionTest, ::testing::ValuesIn(AllAttention()), BackendName);

}  // namespace
}  // namespace tandem
