// Thousands of small damaged files, the same ones every time: each is refused with an Error or
// gives a model whose every weight can be read. tests/fuzz/gguf_fuzz.cc goes on where this stops.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/model/arch/family_file.h"
#include "tests/model/gguf_builder.h"
#include "tests/model/gguf_exercise.h"

namespace tandem {
namespace {

constexpr int kMutants = 6000;
constexpr uint64_t kInteresting[] = {0,
                                     1,
                                     2,
                                     3,
                                     7,
                                     8,
                                     13,
                                     31,
                                     32,
                                     64,
                                     255,
                                     256,
                                     65535,
                                     65536,
                                     (1u << 31) - 1,
                                     1u << 31,
                                     0xffffffff,
                                     uint64_t{1} << 32,
                                     uint64_t{1} << 61,
                                     (uint64_t{1} << 63) - 64,
                                     uint64_t{1} << 63,
                                     ~uint64_t{0} - 31,
                                     ~uint64_t{0}};

// Spoils one to four places; nearly all of them in the header, where there is something to break.
std::string Mutate(std::string bytes, size_t header, std::mt19937_64& random) {
  const auto below = [&](uint64_t n) { return random() % n; };
  const uint64_t edits = 1 + below(4);
  for (uint64_t i = 0; i < edits && !bytes.empty(); ++i) {
    const size_t zone = below(16) == 0 ? bytes.size() : std::min(bytes.size(), header);
    const size_t at = below(zone);
    switch (below(6)) {
      case 0:
        bytes[at] = static_cast<char>(random());
        break;
      case 1:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        break;
      case 2: {
        const uint64_t value = kInteresting[below(std::size(kInteresting))];
        const size_t width = below(2) == 0 ? 4 : 8;
        std::memcpy(bytes.data() + at, &value, std::min(width, bytes.size() - at));
        break;
      }
      case 3:
        bytes.erase(at, 1 + below(16));
        break;
      case 4:
        bytes.insert(at, 1 + below(16), static_cast<char>(below(256)));
        break;
      default: {
        const size_t from = below(zone);
        const size_t size = std::min({size_t{8}, bytes.size() - at, bytes.size() - from});
        std::memmove(bytes.data() + at, bytes.data() + from, size);
        break;
      }
    }
  }
  return bytes;
}

// What the families' files have beside the plain ones: biases, norms of heads, rotary scalings.
std::vector<GgufBuilder> FilesToSpoil() {
  std::vector<GgufBuilder> files = {TinyLlamaFile(DType::kQ8_0), TinyLlamaFileWithVocabulary(),
                                    TinyLlamaFile(), TinyFamilyFile("qwen2"),
                                    TinyFamilyFile("qwen3")};
  AddFloats(files[2], "rope_freqs.weight", std::vector<float>(16, 2.0f));
  AddBiases(files[2]);
  AddBiases(files[3]);
  files[3].SetString("qwen2.rope.scaling.type", "yarn");
  files[3].SetF32("qwen2.rope.scaling.factor", 4.0f);
  files[3].SetU32("qwen2.rope.scaling.original_context_length", 64);
  AddHeadNorms(files[4]);
  files[4].SetU32("qwen3.attention.sliding_window", 16);
  return files;
}

TEST(GgufMutationTest, DamagedFilesAreRefusedOrReadable) {
  std::mt19937_64 random(4);
  int loaded = 0;
  const std::vector<GgufBuilder> files = FilesToSpoil();
  for (const GgufBuilder& file : files) {
    const std::string whole = file.Build();
    const size_t header = file.Header().size();
    ASSERT_TRUE(LoadAndReadAll(std::as_bytes(std::span(whole))));
    for (int i = 0; i < kMutants / static_cast<int>(files.size()); ++i) {
      const std::string mutant = Mutate(whole, header, random);
      // Exactly sized on the heap, so that a sanitizer sees a read beyond the end.
      const std::vector<char> bytes(mutant.begin(), mutant.end());
      loaded += LoadAndReadAll(std::as_bytes(std::span(bytes))) ? 1 : 0;
    }
  }
  // Some survive (a changed name or weight), most do not; otherwise the mutations miss their mark.
  EXPECT_GT(loaded, kMutants / 100);
  EXPECT_LT(loaded, kMutants / 2);
}

}  // namespace
}  // namespace tandem
