// The numeric contract, to the bit: an output depends on its K slice, weight type and tier alone,
// never on the number of rows in the call, the threads, or which part of the matrix was asked for.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/kernels/kernel_test_support.h"

namespace tandem {
namespace {

// An odd number of blocks: no tile of an even number fits.
uint64_t Cols(DType type) { return Traits(type).block_elems == 256 ? 3 * 256 : 13 * 32; }
constexpr uint64_t kRows = 67;
constexpr uint64_t kTokens = 70;

class InvarianceTest : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    bench_ = MakeBench(GetParam(), 1);
    if (!bench_.ops) GTEST_SKIP() << bench_.missing;
    x_ = RandomFloats(kTokens * Cols(DType::kQ6_K), 1);
  }
  // Token t alone, all rows, one thread: what everything else must equal.
  std::vector<float> OneByOne(const TestTensor& w, Int8Parts parts = Int8Parts::kOne) {
    const Packed packed = PackSlice(*bench_.ops, w, Whole(w.view));
    const uint64_t cols = w.view.cols;
    std::vector<float> all;
    for (uint64_t t = 0; t < kTokens; ++t) {
      const std::vector<float> token(x_.begin() + t * cols, x_.begin() + (t + 1) * cols);
      const std::vector<float> y =
          Product(*bench_.ops, packed.matrix, Whole(w.view), token, 1, parts);
      all.insert(all.end(), y.begin(), y.end());
    }
    return all;
  }
  bool OnGpu() const { return GetParam().tier.starts_with("cuda"); }
  Bench bench_;
  std::vector<float> x_;
};

TEST_P(InvarianceTest, TokensInACallDoNotChangeABit) {
  for (DType type : kAllDTypes) {
    for (Int8Parts parts : {Int8Parts::kOne, Int8Parts::kTwo}) {
      if (!HasParts(GetParam().activations, type, parts)) continue;
      const TestTensor w = MakeTensor(type, kRows, Cols(type), 2);
      const std::vector<float> want = OneByOne(w, parts);
      const Packed packed = PackSlice(*bench_.ops, w, Whole(w.view));
      // Emulated threads take their time: fewer numbers, on both sides of every choice of a kernel.
      const uint64_t step = OnGpu() ? 6 : 1;
      for (uint64_t n = 2; n <= kTokens; n += n < 10 ? 1 : n < 40 ? step : 15) {
        const std::vector<float> x(x_.begin(), x_.begin() + n * Cols(type));
        const std::vector<float> got =
            Product(*bench_.ops, packed.matrix, Whole(w.view), x, n, parts);
        ASSERT_TRUE(Same(got, {want.begin(), want.begin() + n * kRows}, kRows))
            << ToString(type) << " n " << n << " in " << static_cast<int>(parts) << " parts";
      }
    }
  }
}

TEST_P(InvarianceTest, ThreadsDoNotChangeABit) {
  if (OnGpu()) GTEST_SKIP() << "a GPU has no team of threads to choose";
  for (DType type : kAllDTypes) {
    const TestTensor w = MakeTensor(type, kRows, Cols(type), 3);
    const std::vector<float> want = OneByOne(w, Int8Parts::kTwo);
    for (int threads : {2, 3, 7}) {
      const Bench bench = MakeBench(GetParam(), threads);
      const Packed packed = PackSlice(*bench.ops, w, Whole(w.view));
      const std::vector<float> x(x_.begin(), x_.begin() + kTokens * Cols(type));
      EXPECT_TRUE(
          Same(Product(*bench.ops, packed.matrix, Whole(w.view), x, kTokens, Int8Parts::kTwo), want,
               kRows))
          << ToString(type) << " threads " << threads;
    }
  }
}

TEST_P(InvarianceTest, RowRangesDoNotChangeABit) {
  for (DType type : kAllDTypes) {
    const TestTensor w = MakeTensor(type, kRows, Cols(type), 4);
    const std::vector<float> want = OneByOne(w, Int8Parts::kTwo);
    const Packed packed = PackSlice(*bench_.ops, w, Whole(w.view));
    for (uint64_t n : OnGpu() ? std::vector<uint64_t>{1, 40} : std::vector<uint64_t>{1, 5, 40}) {
      const std::vector<float> x(x_.begin(), x_.begin() + n * Cols(type));
      for (uint64_t begin : {0, 1, 7, 8, 13, 16, 63, 66}) {
        for (uint64_t end : {begin + 1, begin + 3, begin + 8, begin + 20, kRows}) {
          if (end > kRows) continue;
          const MatrixSlice slice{begin, end, 0, Cols(type)};
          const std::vector<float> got =
              Product(*bench_.ops, packed.matrix, slice, x, n, Int8Parts::kTwo);
          for (uint64_t t = 0; t < n; ++t) {
            for (uint64_t r = begin; r < end; ++r) {
              ASSERT_EQ(got[t * slice.rows() + r - begin], want[t * kRows + r])
                  << ToString(type) << " rows " << begin << ".." << end << " n " << n;
            }
          }
        }
      }
    }
  }
}

TEST_P(InvarianceTest, WhereTheSliceWasPackedDoesNotChangeABit) {
  for (DType type : kAllDTypes) {
    const TestTensor w = MakeTensor(type, kRows, Cols(type), 5);
    const bool long_blocks = Cols(type) == 768;
    const MatrixSlice slice{21, 50, long_blocks ? 512u : 96u, long_blocks ? 768u : 352u};
    const std::vector<float> x(x_.begin(), x_.begin() + 9 * slice.cols());
    const Packed whole = PackSlice(*bench_.ops, w, Whole(w.view));
    const Packed part = PackSlice(*bench_.ops, w, {19, 60, long_blocks ? 256u : 32u, Cols(type)});
    const std::vector<float> want = Product(*bench_.ops, whole.matrix, slice, x, 9);
    EXPECT_TRUE(Same(Product(*bench_.ops, part.matrix, slice, x, 9), want, slice.rows()))
        << ToString(type);
  }
}

TEST_P(InvarianceTest, RowOpsDoNotSeeTheirNeighbours) {
  const uint64_t hidden = 576, n = 64;  // enough to run on the team
  const Bench team = MakeBench(GetParam(), 3);
  const std::vector<float> x = RandomFloats(n * hidden, 6, 2.0f);
  const std::vector<float> w = RandomFloats(hidden, 7);
  std::vector<float> norm = Poison(n * hidden), glu = norm, one = Poison(hidden);
  team.ops->RmsNorm(x.data(), w.data(), 1e-5f, n, hidden, norm.data());
  team.ops->SwiGlu(x.data(), norm.data(), n * hidden, glu.data());
  for (uint64_t t = 0; t < n; ++t) {
    const auto row = [&](const std::vector<float>& all) {
      return std::vector<float>(all.begin() + t * hidden, all.begin() + (t + 1) * hidden);
    };
    bench_.ops->RmsNorm(x.data() + t * hidden, w.data(), 1e-5f, 1, hidden, one.data());
    ASSERT_TRUE(Same(one, row(norm), hidden));
    bench_.ops->SwiGlu(x.data() + t * hidden, norm.data() + t * hidden, hidden, one.data());
    ASSERT_TRUE(Same(one, row(glu), hidden));
  }
}

// Attention over 700 positions by teams of several sizes, all rows at once and the last one alone.
void ExpectThreadsDoNotChangeAttention(const Backend& backend, uint32_t window) {
  const uint32_t total = 700, heads = 6, kv_heads = 2, hd = 64;
  const uint64_t page = uint64_t{2} * kv_heads * kPageTokens * hd;
  std::vector<int32_t> pages(11);
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i);
  const std::vector<float> k = RandomFloats(total * kv_heads * hd, 8, 2.0f);
  const std::vector<float> v = RandomFloats(total * kv_heads * hd, 9);
  const std::vector<float> q = RandomFloats(total * heads * hd, 10, 2.0f);
  std::vector<std::vector<float>> decode, prefill;
  // A GPU has no team: what differs there is that the last row's folds run side by side.
  const bool gpu = backend.tier.starts_with("cuda");
  for (int threads : gpu ? std::vector<int>{1} : std::vector<int>{1, 2, 5}) {
    const Bench bench = MakeBench(backend, threads);
    std::vector<uint16_t> memory(page * pages.size(), 0x7e00);
    std::vector<std::byte> room(1 << 20);
    const KvView kv{reinterpret_cast<std::byte*>(memory.data()),
                    page * 2,
                    kv_heads,
                    hd,
                    room.data(),
                    room.size()};
    const SequenceRows all{0, total, 0, pages.data()};
    std::vector<float> rotated = q, keys = k, out = Poison(q.size());
    bench.ops->RopeAndStore(rotated.data(), keys.data(), v.data(), heads, {.rope_dim = hd},
                            {&all, 1}, kv);
    bench.ops->Attention(rotated.data(), heads, window, {&all, 1}, kv, out.data());
    prefill.push_back(out);
    // One row over a long past: the case whose folds are shared out among threads.
    const SequenceRows last{0, 1, total - 1, pages.data()};
    std::vector<float> one = Poison(heads * hd);
    bench.ops->Attention(rotated.data() + uint64_t{total - 1} * heads * hd, heads, window,
                         {&last, 1}, kv, one.data());
    decode.push_back(one);
    EXPECT_TRUE(Same(prefill.back(), prefill.front(), heads * hd)) << threads << " threads";
    EXPECT_TRUE(Same(decode.back(), decode.front(), heads * hd)) << threads << " threads";
    EXPECT_TRUE(Same(one, {out.end() - heads * hd, out.end()}, heads * hd));
  }
}

TEST_P(InvarianceTest, ThreadsDoNotChangeAttention) {
  if (GetParam().tier == "ref") GTEST_SKIP() << "the oracle runs on one thread";
  ExpectThreadsDoNotChangeAttention(GetParam(), 0);
}

// More folds than threads compute before they join them, and a last one that is not full. The room
// to work in may hold none of their states, a few, or all.
TEST_P(InvarianceTest, ThreadsDoNotChangeAttentionOverALongPast) {
  if (GetParam().tier == "ref") GTEST_SKIP() << "the oracle runs on one thread";
  const uint32_t total = 130 * kAttentionFold + 77, kv_heads = 2, heads = 4, hd = 16;
  const uint64_t page = uint64_t{2} * kv_heads * kPageTokens * hd;
  std::vector<int32_t> pages((total + kPageTokens - 1) / kPageTokens);
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = static_cast<int32_t>(i);
  std::vector<uint16_t> memory(page * pages.size());
  for (size_t i = 0; i < memory.size(); ++i) {
    memory[i] = static_cast<uint16_t>((i * 2654435761u >> 7 & 0x87ff) | 0x3000);  // up to 1/2
  }
  constexpr auto kGuard = std::byte{0x5a};
  std::vector<std::byte> room(1 << 18);
  KvView kv{reinterpret_cast<std::byte*>(memory.data()), page * 2, kv_heads, hd};
  const std::vector<float> q = RandomFloats(heads * hd, 14, 2.0f);
  const SequenceRows last{0, 1, total - 1, pages.data()};
  std::vector<float> want;
  for (int threads : {1, 2, 3}) {
    const Bench bench = MakeBench(GetParam(), threads);
    for (uint64_t bytes : {0u, 40u, 1100u, 3000u, 10'000u, 200'000u}) {
      std::fill(room.begin(), room.end(), kGuard);
      kv.room = bytes == 0 ? nullptr : room.data() + 4;  // on no cache line's start
      kv.room_bytes = bytes;
      std::vector<float> out = Poison(q.size());
      bench.ops->Attention(q.data(), heads, 0, {&last, 1}, kv, out.data());
      if (want.empty()) want = out;
      EXPECT_TRUE(Same(out, want, hd)) << threads << " threads, " << bytes << " bytes";
      const auto spared = [&](size_t from, size_t to) {
        return std::all_of(room.begin() + static_cast<ptrdiff_t>(from),
                           room.begin() + static_cast<ptrdiff_t>(to),
                           [](std::byte b) { return b == kGuard; });
      };
      EXPECT_TRUE(spared(0, 4) && spared(4 + bytes, room.size())) << bytes;
      // The large one is used, by the back ends of the CPU where there are threads to share it.
      const bool shared = GetParam().tier.find("cuda") == std::string::npos && threads > 1;
      EXPECT_TRUE(!shared || bytes < 200'000 || !spared(4, 4 + bytes));
    }
  }
  // The oracle keeps keys in its own order.
  const std::unique_ptr<Ops> oracle = MakeRefOps(GetParam().activations);
  const KeyOrder order = MakeBench(GetParam()).ops->key_order();
  std::vector<uint16_t> plain = memory;
  for (uint64_t head = 0; head < pages.size() * 2 * kv_heads; ++head) {
    if (head % (2 * kv_heads) >= kv_heads) continue;  // values
    const uint64_t keys = head * kPageTokens * hd;
    for (uint32_t i = 0; i < kPageTokens * hd; ++i) {
      plain[keys + KeyAt(oracle->key_order(), hd, i / hd, i % hd)] =
          memory[keys + KeyAt(order, hd, i / hd, i % hd)];
    }
  }
  kv.base = reinterpret_cast<std::byte*>(plain.data());
  std::vector<float> reference = Poison(q.size());
  oracle->Attention(q.data(), heads, 0, {&last, 1}, kv, reference.data());
  EXPECT_TRUE(Near(want, reference, hd, [](size_t) { return 1e-4; }));
}

TEST_P(InvarianceTest, ThreadsDoNotChangeAttentionWithinAWindow) {
  if (GetParam().tier == "ref") GTEST_SKIP() << "the oracle runs on one thread";
  // The last row then sees parts of two folds, of three, and of one.
  for (uint32_t window : {300u, 500u, 40u}) ExpectThreadsDoNotChangeAttention(GetParam(), window);
}

TEST_P(InvarianceTest, BiasesAndHeadNormsDoNotSeeTheirNeighbours) {
  const uint64_t heads = 6, hd = 48, width = heads * hd, n = 80;  // enough to run on the team
  const Bench team = MakeBench(GetParam(), 3);
  const std::vector<float> x = RandomFloats(n * width, 11, 2.0f);
  const std::vector<float> bias = RandomFloats(width, 12), w = RandomFloats(hd, 13);
  std::vector<float> all = x;
  team.ops->AddBias(bias.data(), n, width, all.data());
  team.ops->RmsNorm(all.data(), w.data(), 1e-6f, n * heads, hd, all.data());
  // Head by head, as a device that holds only that head would.
  for (uint64_t i = 0; i < n * heads; ++i) {
    std::vector<float> one(x.begin() + i * hd, x.begin() + (i + 1) * hd);
    bench_.ops->AddBias(bias.data() + i % heads * hd, 1, hd, one.data());
    bench_.ops->RmsNorm(one.data(), w.data(), 1e-6f, 1, hd, one.data());
    ASSERT_TRUE(Same(one, {all.begin() + i * hd, all.begin() + (i + 1) * hd}, hd)) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, InvarianceTest, ::testing::ValuesIn(AllBackends()), BackendName);

}  // namespace
}  // namespace tandem
