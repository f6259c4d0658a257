// GGUF files that must be refused: each with the right code and a message that names file and
// field.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>

#include "engine/base/error.h"
#include "engine/base/sanitizers.h"
#include "engine/model/gguf_load.h"
#include "engine/model/model.h"
#include "tests/model/gguf_builder.h"

namespace tandem {
namespace {

constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();  // -1 to a signed reader

// The exact bytes on the heap, so that a sanitizer sees a read beyond them.
std::shared_ptr<const Model> LoadBytes(const std::string& content) {
  auto bytes = std::make_shared<std::vector<char>>(content.begin(), content.end());
  bytes->shrink_to_fit();
  return LoadGgufBytes(std::as_bytes(std::span(*bytes)), bytes, "bad.gguf");
}

void ExpectRefused(const std::string& content, ErrorCode code, const std::string& field) {
  try {
    LoadBytes(content);
    ADD_FAILURE() << "loaded, but should name " << field;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find("bad.gguf"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(field), std::string::npos) << error.what();
  }
}

// The tiny file with one thing wrong.
void ExpectRefused(const std::function<void(GgufBuilder&)>& spoil, ErrorCode code,
                   const std::string& field) {
  GgufBuilder file = TinyLlamaFileWithVocabulary();
  spoil(file);
  ExpectRefused(file.Build(), code, field);
}

constexpr ErrorCode kBad = ErrorCode::kModelFile;
constexpr ErrorCode kUnsupported = ErrorCode::kUnsupported;

TEST(GgufHostileTest, TheFileThatTheCasesSpoilLoads) {
  EXPECT_NO_THROW(LoadBytes(TinyLlamaFileWithVocabulary().Build()));
}

TEST(GgufHostileTest, RefusesForeignMagicAndVersions) {
  ExpectRefused([](auto& f) { f.magic = "GGML"; }, kBad, "magic");
  ExpectRefused([](auto& f) { f.magic = "FUGG"; }, kBad, "magic");
  for (const uint32_t version : {0u, 1u, 4u, 1000u, 0xffffffffu}) {
    ExpectRefused([&](auto& f) { f.version = version; }, kBad,
                  "version (at byte 8): " + std::to_string(version) + " (want 2 or 3)");
  }
  ExpectRefused([](auto& f) { f.version = 0x03000000; }, kUnsupported, "big-endian");
  ExpectRefused(std::string(4096, '\0'), kBad, "magic");
}

TEST(GgufHostileTest, RefusesCountsThatTheFileCannotHold) {
  ExpectRefused([](auto& f) { f.n_tensors = kHuge; }, kBad, "tensor count");
  ExpectRefused([](auto& f) { f.n_keys = kHuge; }, kBad, "key count");
  ExpectRefused([](auto& f) { f.n_tensors = 100000; }, kBad, "counts");
  ExpectRefused([](auto& f) { f.n_keys = 60000; }, kBad, "counts");
  ExpectRefused([](auto& f) { f.n_tensors = f.tensors.size() - 1; }, kBad, "");
  ExpectRefused([](auto& f) { f.n_keys = f.keys.size() - 1; }, kBad, "");
  ExpectRefused([](auto& f) { f.n_keys = f.keys.size() + 1; }, kBad, "");
}

TEST(GgufHostileTest, RefusesStringsLongerThanTheFile) {
  const auto string_of = [](uint64_t length) { return Raw(length) + "llama"; };
  for (const uint64_t length : {uint64_t{1} << 20, uint64_t{1} << 31, uint64_t{1} << 63, kHuge}) {
    ExpectRefused([&](auto& f) { f.Set("general.name", 8, string_of(length)); }, kBad,
                  "general.name");
  }
  // A key's own length.
  GgufBuilder file;
  const std::string start = file.magic + Raw(uint32_t{3}) + Raw(uint64_t{0}) + Raw(uint64_t{1});
  ExpectRefused(start + Raw(kHuge) + std::string(64, 'k'), kBad, "key 0");
  ExpectRefused(start + Raw(uint64_t{60000}) + std::string(64, 'k'), kBad, "key 0");
  ExpectRefused(start + Raw(uint64_t{0}) + std::string(64, '\0'), kBad, "key 0");
}

TEST(GgufHostileTest, RefusesValuesOfUnknownOrNestedTypes) {
  for (const uint32_t type : {13u, 255u, 0xffffffffu}) {
    ExpectRefused([&](auto& f) { f.Set("x.y", type, Raw(uint64_t{0})); }, kBad, "'x.y'");
    ExpectRefused([&](auto& f) { f.Set("x.y", 9, Raw(type) + Raw(uint64_t{0})); }, kBad, "'x.y'");
  }
  const std::string nested =
      Raw(uint32_t{9}) + Raw(uint64_t{1}) + Raw(uint32_t{4}) + Raw(uint64_t{1}) + Raw(uint32_t{7});
  ExpectRefused([&](auto& f) { f.Set("x.y", 9, nested); }, kBad, "array of arrays");
}

TEST(GgufHostileTest, RefusesArraysThatTheFileCannotHold) {
  for (const uint32_t element : {0u, 4u, 7u, 8u, 10u}) {
    for (const uint64_t count : {uint64_t{1} << 20, uint64_t{1} << 60, uint64_t{1} << 61,
                                 (uint64_t{1} << 61) + 1, uint64_t{1} << 62, kHuge}) {
      ExpectRefused([&](auto& f) { f.Set("x.y", 9, Raw(element) + Raw(count)); }, kBad, "'x.y'");
    }
  }
}

// Metadata that are there, but more than any model has.
TEST(GgufHostileTest, HugeMetadataCostNoMoreThanReadingThem) {
  const auto begin = std::chrono::steady_clock::now();
  const auto add_keys = [](GgufBuilder& file, size_t count) {
    while (file.keys.size() < count) {
      file.keys.push_back({"x." + std::to_string(file.keys.size()), 4, Raw(uint32_t{7})});
    }
  };
  GgufBuilder file = TinyLlamaFileWithVocabulary();
  add_keys(file, 65536);
  EXPECT_NO_THROW(LoadBytes(file.Build()));
  ExpectRefused([&](auto& f) { add_keys(f, 65537); }, kBad, "key count");
  const uint64_t count = 1u << 20;
  file = TinyLlamaFileWithVocabulary();
  file.Set("x.y", 9, Raw(uint32_t{8}) + Raw(count) + std::string(8 * count, '\0'));
  file.SetString("x.z", std::string(8u << 20, 'z'));
  EXPECT_NO_THROW(LoadBytes(file.Build()));
  ExpectRefused(
      [&](auto& f) {
        f.Set("tokenizer.ggml.tokens", 9,
              Raw(uint32_t{8}) + Raw(count) + std::string(8 * count, '\0'));
      },
      kBad, "1048576 tokens (want 8");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

TEST(GgufHostileTest, RefusesDuplicates) {
  ExpectRefused([](auto& f) { f.keys.push_back(f.keys[2]); }, kBad, "'llama.block_count'");
  ExpectRefused([](auto& f) { f.tensors.push_back(f.tensors[1]); }, kBad,
                "'blk.0.attn_norm.weight'");
}

TEST(GgufHostileTest, RefusesAlignmentsThatCannotBe) {
  for (const uint32_t alignment : {0u, 1u, 4u, 13u, 24u, 1u << 30, 0xffffffffu}) {
    ExpectRefused([&](auto& f) { f.SetU32("general.alignment", alignment); }, kBad,
                  "general.alignment");
  }
  ExpectRefused([](auto& f) { f.Set("general.alignment", 10, Raw(uint64_t{32})); }, kBad,
                "general.alignment: uint64 (want uint32)");
  ExpectRefused([](auto& f) { f.SetString("general.alignment", "32"); }, kBad, "general.alignment");
}

TEST(GgufHostileTest, RefusesTensorsOfImpossibleShape) {
  const std::string name = "output_norm.weight";
  ExpectRefused([&](auto& f) { f.tensor(name).name = std::string(64, 'n'); }, kBad,
                "name of tensor");
  ExpectRefused([&](auto& f) { f.tensor(name).name = ""; }, kBad, "name of tensor");
  ExpectRefused([&](auto& f) { f.tensor(name).dims = {}; }, kBad, name);
  ExpectRefused([&](auto& f) { f.tensor(name).dims = {1, 1, 1, 1, 64}; }, kBad, name);
  ExpectRefused([&](auto& f) { f.tensor(name).dims = {0}; }, kBad, name);
  ExpectRefused([&](auto& f) { f.tensor(name).dims = {kHuge}; }, kBad, name);
  ExpectRefused([&](auto& f) { f.tensor(name).dims = {64, uint64_t{1} << 63}; }, kBad, name);
  ExpectRefused([&](auto& f) { f.tensor(name).dims = {uint64_t{1} << 32, uint64_t{1} << 32}; },
                kBad, name);
  ExpectRefused([&](auto& f) { f.tensor(name).dims = {uint64_t{1} << 62}; }, kBad, name);
  ExpectRefused([&](auto& f) { f.tensor(name).dims = {(uint64_t{1} << 62) + 64}; }, kBad, name);
  ExpectRefused([&](auto& f) { f.tensor(name).dims = {32, 1, 2}; }, kBad, "two dimensions");
  ExpectRefused([&](auto& f) { f.tensor(name).dims = {32}; }, kBad, name);
  ExpectRefused([&](auto& f) { f.tensor("blk.0.attn_q.weight").dims = {64, 32}; }, kBad,
                "blk.0.attn_q.weight");
  // 64 x 64 elements all the same, but rows of 16 cut the blocks.
  ExpectRefused([&](auto& f) { f.tensor("blk.0.attn_q.weight").dims = {16, 256}; }, kBad,
                "multiple of 32");
}

TEST(GgufHostileTest, RefusesSumsThatOverflow) {
  // Two tensors of 2^63 - 64 bytes: their sum wraps to a small number.
  ExpectRefused(
      [](auto& f) {
        const uint64_t elems = ((uint64_t{1} << 63) - 64) / 4;
        f.tensor("output_norm.weight").dims = {elems};
        f.tensor("blk.0.ffn_norm.weight").dims = {elems};
      },
      kBad, "blk.0.ffn_norm.weight");
  // A size near 2^63 in a type whose blocks take more bytes than elements.
  ExpectRefused(
      [](auto& f) {
        f.tensor("blk.0.attn_q.weight").ggml_type = 8;
        f.tensor("blk.0.attn_q.weight").dims = {uint64_t{1} << 62};
      },
      kBad, "blk.0.attn_q.weight");
}

TEST(GgufHostileTest, RefusesForeignTensorTypesByName) {
  const std::string name = "blk.0.attn_q.weight";
  ExpectRefused([&](auto& f) { f.tensor(name).ggml_type = 11; }, kUnsupported,
                "tensor type Q3_K (11) (tandem reads F32, F16,");
  ExpectRefused([&](auto& f) { f.tensor(name).ggml_type = 13; }, kBad,
                "rows of 64 elements (want a multiple of 256 for Q5_K)");
  ExpectRefused([&](auto& f) { f.tensor(name).ggml_type = 39; }, kUnsupported,
                "tensor type MXFP4 (39)");
  ExpectRefused([&](auto& f) { f.tensor(name).ggml_type = 77; }, kUnsupported,
                "tensor type unknown (77)");
  ExpectRefused([&](auto& f) { f.tensor(name).ggml_type = 0xffffffff; }, kUnsupported, name);
  ExpectRefused([&](auto& f) { f.tensor("output_norm.weight").ggml_type = 1; }, kUnsupported,
                "vector of type F16");
}

TEST(GgufHostileTest, RefusesOffsetsOutsideTheFileUnalignedOrShared) {
  const std::string name = "output_norm.weight";
  for (const uint64_t offset :
       {uint64_t{1} << 20, uint64_t{1} << 40, uint64_t{1} << 63, kHuge - 31, kHuge - 255}) {
    ExpectRefused([&](auto& f) { f.tensor(name).offset = offset; }, kBad, name);
  }
  for (const uint64_t offset : {1u, 8u, 31u}) {
    ExpectRefused([&](auto& f) { f.tensor(name).offset = offset; }, kBad,
                  "multiple of the alignment");
  }
  ExpectRefused([&](auto& f) { f.tensor(name).offset = 0; }, kBad, "shares bytes with tensor");
}

TEST(GgufHostileTest, RefusesEveryTruncation) {
  for (const GgufBuilder& file : {TinyLlamaFile(), TinyLlamaFileWithVocabulary()}) {
    const std::string whole = file.Build();
    const size_t header = file.Header().size();
    const size_t step = 7;  // beyond the header, where only data are cut
    for (size_t size = 0; size < whole.size(); size += size <= header ? 1 : step) {
      try {
        LoadBytes(whole.substr(0, size));
        ADD_FAILURE() << "loaded from " << size << " of " << whole.size() << " bytes";
      } catch (const Error& error) {
        ASSERT_EQ(error.code(), kBad) << size << ": " << error.what();
      }
    }
    ExpectRefused(whole.substr(0, whole.size() - 1), kBad, "output_norm.weight");
  }
}

TEST(GgufHostileTest, RefusesMissingOrImpossibleHyperparameters) {
  for (const char* key : {"general.architecture", "llama.block_count", "llama.context_length",
                          "llama.embedding_length", "llama.feed_forward_length",
                          "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon"}) {
    ExpectRefused([&](auto& f) { f.Erase(key); }, kBad, key);
    ExpectRefused([&](auto& f) { f.template SetArray<uint32_t>(key, 4, {1, 2}); }, kBad, key);
  }
  for (const char* key :
       {"llama.block_count", "llama.context_length", "llama.embedding_length",
        "llama.feed_forward_length", "llama.attention.head_count", "llama.attention.head_count_kv",
        "llama.rope.dimension_count", "llama.attention.key_length"}) {
    for (const uint32_t value : {0u, 0x7fffffffu, 0xffffffffu}) {
      ExpectRefused([&](auto& f) { f.SetU32(key, value); }, kBad, "");
    }
    ExpectRefused([&](auto& f) { f.Set(key, 5, Raw(int32_t{-1})); }, kBad, key);
    ExpectRefused([&](auto& f) { f.Set(key, 10, Raw(uint64_t{1} << 40)); }, kBad, key);
    ExpectRefused([&](auto& f) { f.SetString(key, "1"); }, kBad, key);
  }
  ExpectRefused([](auto& f) { f.SetU32("llama.attention.head_count", 3); }, kBad,
                "llama.attention.head_count");
  ExpectRefused([](auto& f) { f.SetU32("llama.attention.head_count", 0); }, kBad,
                "llama.attention.head_count");
  ExpectRefused([](auto& f) { f.SetU32("llama.attention.head_count_kv", 3); }, kBad, "KV heads");
  ExpectRefused([](auto& f) { f.SetU32("llama.rope.dimension_count", 31); }, kBad,
                "rotary dimensions");
  ExpectRefused([](auto& f) { f.SetU32("llama.block_count", 2); }, kBad, "blk.1.attn_norm.weight");
  ExpectRefused([](auto& f) { f.SetU32("llama.vocab_size", 9); }, kBad, "token_embd.weight");
}

TEST(GgufHostileTest, RefusesNumbersThatAreNone) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const char* key : {"llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base",
                          "llama.rope.scaling.factor"}) {
    for (const float value : {nan, inf, -inf, -1.0f}) {
      ExpectRefused([&](auto& f) { f.SetF32(key, value); }, kBad, "");
    }
    ExpectRefused([&](auto& f) { f.Set(key, 12, Raw(1e300)); }, kBad, key);
    ExpectRefused([&](auto& f) { f.SetU32(key, 1); }, kBad, key);
  }
  ExpectRefused([](auto& f) { f.SetF32("llama.attention.layer_norm_rms_epsilon", 0.0f); }, kBad,
                "norm epsilon");
  ExpectRefused([](auto& f) { f.Set("tokenizer.ggml.add_bos_token", 7, "\x02"); }, kBad,
                "tokenizer.ggml.add_bos_token");
  ExpectRefused([](auto& f) { f.SetU32("tokenizer.ggml.add_bos_token", 1); }, kBad,
                "tokenizer.ggml.add_bos_token");
}

TEST(GgufHostileTest, NamesWhatItDoesNotSupport) {
  ExpectRefused([](auto& f) { f.SetString("general.architecture", "gemma3"); }, kUnsupported,
                "architecture 'gemma3' (tandem knows llama, qwen2, qwen3)");
  ExpectRefused([](auto& f) { f.SetString("general.architecture", "\x1b[31mx"); }, kUnsupported,
                "architecture '?[31mx'");
  ExpectRefused([](auto& f) { f.SetString("llama.rope.scaling.type", "longrope"); }, kUnsupported,
                "llama.rope.scaling.type: 'longrope'");
  ExpectRefused([](auto& f) { f.SetU32("llama.expert_count", 8); }, kUnsupported,
                "llama.expert_count");
  ExpectRefused([](auto& f) { f.SetF32("llama.logit_scale", 0.25f); }, kUnsupported,
                "llama.logit_scale");
  ExpectRefused([](auto& f) { f.SetBool("llama.attention.causal", false); }, kUnsupported,
                "llama.attention.causal");
  ExpectRefused([](auto& f) { f.SetU32("llama.attention.value_length", 16); }, kUnsupported,
                "llama.attention.value_length");
  const auto with = [](const std::string& name) {
    return [name](GgufBuilder& f) { f.AddTensor(name, {64}, DType::kF32); };
  };
  ExpectRefused(with("rope_factors_long.weight"), kUnsupported, "rotary frequency factors");
  ExpectRefused(with("blk.0.attn_output.bias"), kUnsupported, "'blk.0.attn_output.bias': biases");
  ExpectRefused(with("blk.0.attn_q_norm.weight"), kUnsupported, "'blk.0.attn_q_norm.weight'");
  ExpectRefused(with("blk.0.ffn_gate_exps.weight"), kUnsupported, "mixtures of experts");
  ExpectRefused(with("blk.1.attn_norm.weight"), kUnsupported, "'blk.1.attn_norm.weight'");
  ExpectRefused(with("mm.0.weight"), kUnsupported, "'mm.0.weight'");
}

TEST(GgufHostileTest, HarmlessKeysOfForeignFeaturesLoad) {
  GgufBuilder file = TinyLlamaFile();
  file.SetU32("llama.expert_count", 0);
  file.SetBool("llama.attention.causal", true);
  file.Set("split.count", 2, Raw(uint16_t{0}));
  file.SetArray<float>("some.other.key", 6, {});
  EXPECT_NO_THROW(LoadBytes(file.Build()));
}

TEST(GgufHostileTest, RefusesTensorsThatAreMissing) {
  for (const GgufBuilder::Tensor& tensor : TinyLlamaFile().tensors) {
    ExpectRefused([&](auto& f) { f.EraseTensor(tensor.name); }, kBad,
                  tensor.name == "token_embd.weight" ? "vocabulary" : tensor.name);
  }
}

TEST(GgufHostileTest, RefusesVocabulariesThatDoNotFit) {
  ExpectRefused([](auto& f) { f.Erase("tokenizer.ggml.tokens"); }, kBad, "tokenizer.ggml.tokens");
  ExpectRefused([](auto& f) { f.SetStrings("tokenizer.ggml.tokens", {"a", "b"}); }, kBad,
                "tokenizer.ggml.tokens: 2 tokens (want 8");
  ExpectRefused([](auto& f) { f.template SetArray<uint32_t>("tokenizer.ggml.tokens", 4, {1, 2}); },
                kBad, "tokenizer.ggml.tokens");
  ExpectRefused([](auto& f) { f.template SetArray<int32_t>("tokenizer.ggml.token_type", 5, {1}); },
                kBad, "tokenizer.ggml.token_type");
  ExpectRefused([](auto& f) { f.template SetArray<float>("tokenizer.ggml.scores", 6, {1}); }, kBad,
                "tokenizer.ggml.scores");
  ExpectRefused([](auto& f) { f.SetU32("tokenizer.ggml.bos_token_id", 8); }, kBad,
                "tokenizer.ggml.bos_token_id");
  ExpectRefused([](auto& f) { f.SetU32("tokenizer.ggml.eos_token_id", 0xffffffff); }, kBad,
                "tokenizer.ggml.eos_token_id");
  ExpectRefused([](auto& f) { f.SetStrings("tokenizer.ggml.merges", {"a z"}); }, kBad, "merge");
  ExpectRefused([](auto& f) { f.SetString("tokenizer.ggml.model", "bert"); }, kUnsupported,
                "'bert'");
}

// A small file must not make the loader take much memory: whatever it claims, the address space is
// held to what is in use plus 256 MiB. Sanitizers need the address space for themselves.
TEST(GgufHostileTest, MemoryStaysBoundedByTheFile) {
  if (kAddressSanitizer || kThreadSanitizer) {
    GTEST_SKIP() << "a sanitizer's shadow is beyond any bound on the address space";
  }
  std::ifstream statm("/proc/self/statm");
  uint64_t pages = 0;
  statm >> pages;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_AS, &before), 0);
  rlimit tight = before;
  tight.rlim_cur = pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)) + (256u << 20);
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &tight), 0);
  ExpectRefused([](auto& f) { f.n_tensors = 131072; }, kBad, "counts");
  ExpectRefused([](auto& f) { f.Set("x.y", 9, Raw(uint32_t{8}) + Raw(uint64_t{1} << 32)); }, kBad,
                "'x.y'");
  ExpectRefused([](auto& f) { f.SetU32("llama.block_count", 16384); }, kBad, "blk.1.");
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &before), 0);
}

void ExpectPathRefused(const std::string& path, ErrorCode code, const std::string& what) {
  const auto begin = std::chrono::steady_clock::now();
  try {
    LoadGguf(path);
    ADD_FAILURE() << path << " loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST(GgufHostileTest, RefusesWhatIsNoRegularFile) {
  const std::string base = testing::TempDir() + "tandem_hostile_" + std::to_string(::getpid());
  ExpectPathRefused(base + "_none", ErrorCode::kModelFile, "No such file");
  ExpectPathRefused("/dev/null/model.gguf", ErrorCode::kModelFile, "Not a directory");
  ExpectPathRefused(testing::TempDir(), kBad, "is a directory");
  ExpectPathRefused("/dev/zero", kBad, "not a regular file");
  ExpectPathRefused("/dev/null", kBad, "not a regular file");

  const std::string fifo = base + "_fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  ExpectPathRefused(fifo, kBad, "not a regular file");
  ::unlink(fifo.c_str());

  const std::string empty = base + "_empty";
  std::ofstream(empty).flush();
  ExpectPathRefused(empty, kBad, "is empty");
  ::unlink(empty.c_str());

  const std::string text = base + "_text";
  std::ofstream(text) << "hello";
  ExpectPathRefused(text, kBad, "magic");
  ::unlink(text.c_str());
}

TEST(GgufHostileTest, RefusesAFileItMayNotRead) {
  if (::geteuid() == 0) {
    GTEST_SKIP() << "root may read every file";
  }
  const std::string path = testing::TempDir() + "tandem_secret_" + std::to_string(::getpid());
  std::ofstream(path) << "x";
  ::chmod(path.c_str(), 0);
  ExpectPathRefused(path, kBad, "Permission denied");
  ::unlink(path.c_str());
}

}  // namespace
}  // namespace tandem
