// Attention over prompts: many rows of a sequence together have the bits that they have a few at a
// time. Back ends may take many queries of a sequence in another way than few (CUDA:
// attention_wide.cu), and these shapes are large enough for that, the few too small.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/kernels/kernel_test_support.h"

namespace tandem {
namespace {

struct Shape {
  uint32_t q_heads, kv_heads, head_dim;
};

// Sequences with a past, their rows in one step, and pages handed out in a random order. What lies
// outside of a sequence's positions is NaN.
struct Prompts {
  struct Length {
    uint32_t rows, start;
  };
  Prompts(const Shape& shape, KeyOrder order, const std::vector<Length>& lengths, uint64_t seed)
      : shape(shape), order(order) {
    std::mt19937_64 random(seed);
    std::vector<int32_t> free;
    for (const Length& length : lengths) {
      const uint32_t count = (length.start + length.rows + kPageTokens - 1) / kPageTokens;
      for (uint32_t i = 0; i < count; ++i) free.push_back(static_cast<int32_t>(free.size()));
    }
    std::shuffle(free.begin(), free.end(), random);
    memory.assign(free.size() * elems(), 0x7e00);
    for (const Length& length : lengths) {
      const uint32_t count = length.start + length.rows;
      pages.emplace_back();
      for (uint32_t position = 0; position < count; ++position) {
        if (position % kPageTokens == 0) {
          pages.back().push_back(free.back());
          free.pop_back();
        }
        Write(pages.back().back(), position % kPageTokens, random());
      }
      sequences.push_back({rows, length.rows, length.start, nullptr});
      rows += length.rows;
    }
    for (size_t i = 0; i < pages.size(); ++i) sequences[i].pages = pages[i].data();
    q = RandomFloats(uint64_t{rows} * width(), seed, 3.0f);
  }

  // The same rows, eight or fewer a sequence.
  std::vector<SequenceRows> InPieces() const {
    std::vector<SequenceRows> pieces;
    for (const SequenceRows& sequence : sequences) {
      for (uint32_t i = 0; i < sequence.n_rows; i += 8) {
        pieces.push_back({sequence.first_row + i, std::min(8u, sequence.n_rows - i),
                          sequence.start + i, sequence.pages});
      }
    }
    return pieces;
  }
  std::vector<float> Run(Ops& ops, std::span<const SequenceRows> of, uint32_t window) {
    std::vector<float> out = Poison(q.size());
    const KvView kv{reinterpret_cast<std::byte*>(memory.data()), elems() * 2, shape.kv_heads,
                    shape.head_dim};
    ops.Attention(q.data(), shape.q_heads, window, of, kv, out.data());
    return out;
  }
  uint64_t width() const { return uint64_t{shape.q_heads} * shape.head_dim; }
  uint64_t elems() const {
    return uint64_t{2} * shape.kv_heads * kPageTokens * shape.head_dim;  // of a page
  }

  Shape shape;
  KeyOrder order;
  uint32_t rows = 0;
  std::vector<std::vector<int32_t>> pages;
  std::vector<SequenceRows> sequences;
  std::vector<uint16_t> memory;
  std::vector<float> q;

 private:
  void Write(int32_t page, uint32_t slot, uint64_t seed) {
    const std::vector<float> values = RandomFloats(2 * shape.kv_heads * shape.head_dim, seed, 2.0f);
    uint16_t* to = memory.data() + static_cast<uint64_t>(page) * elems();
    for (size_t i = 0; i < values.size(); ++i) {
      const size_t head = i / shape.head_dim, d = i % shape.head_dim;
      const KeyOrder here = head < shape.kv_heads ? order : KeyOrder::kByPosition;
      to[head * kPageTokens * shape.head_dim + KeyAt(here, shape.head_dim, slot, d)] =
          F32ToF16(values[i]);
    }
  }
};

class PromptAttentionTest : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    bench_ = MakeBench(GetParam());
    if (!bench_.ops) GTEST_SKIP() << bench_.missing;
  }
  void ExpectTheBitsOfPieces(Prompts& prompts, uint32_t window) {
    const std::vector<SequenceRows> pieces = prompts.InPieces();
    const std::vector<float> want = prompts.Run(*bench_.ops, pieces, window);
    EXPECT_TRUE(Same(prompts.Run(*bench_.ops, prompts.sequences, window), want, prompts.width()))
        << prompts.shape.q_heads << " over " << prompts.shape.kv_heads << " heads of "
        << prompts.shape.head_dim << ", window " << window;
  }
  Bench bench_;
};

TEST_P(PromptAttentionTest, ManyRowsHaveTheBitsOfFew) {
  // Across pages and folds, with and without a past, some too short to be taken as a prompt.
  const std::vector<Prompts::Length> lengths = {{100, 37}, {1, 300}, {70, 250}, {33, 0}, {3, 60}};
  for (const Shape& shape :
       {Shape{6, 2, 32}, Shape{4, 4, 64}, Shape{4, 4, 80}, Shape{4, 2, 96}, Shape{4, 1, 128},
        Shape{4, 2, 120}, Shape{4, 4, 8}, Shape{2, 2, 12}, Shape{2, 1, 256}}) {
    Prompts prompts(shape, bench_.ops->key_order(), lengths, 7 + shape.head_dim);
    ExpectTheBitsOfPieces(prompts, 0);
  }
}

TEST_P(PromptAttentionTest, ManyRowsHaveTheBitsOfFewUnderWindows) {
  const std::vector<Prompts::Length> lengths = {{200, 130}, {40, 0}};
  for (const Shape& shape : {Shape{6, 2, 32}, Shape{4, 4, 64}}) {
    Prompts prompts(shape, bench_.ops->key_order(), lengths, 3 + shape.q_heads);
    for (uint32_t window : {1u, 20u, 150u, 300u}) ExpectTheBitsOfPieces(prompts, window);
  }
}

TEST_P(PromptAttentionTest, AnyNumberOfRowsHasTheBitsOfFew) {
  const Shape shape{4, 4, 32};
  std::mt19937_64 random(5);
  for (int i = 0; i < 6; ++i) {
    const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    std::vector<Prompts::Length> lengths = {{128 + below(40), below(200)}};
    if (i % 2 == 0) lengths.push_back({1 + below(70), below(300)});
    Prompts prompts(shape, bench_.ops->key_order(), lengths, random());
    ExpectTheBitsOfPieces(prompts, i % 3 == 0 ? 1 + below(200) : 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, PromptAttentionTest, ::testing::ValuesIn(AllAttention()),
                         BackendName);

}  // namespace
}  // namespace tandem
