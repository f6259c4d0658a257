// Models cut over several GGUF files: what loads, from any part, and what each wrong part is told.
#include "engine/model/gguf_split.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>

#include "engine/base/error.h"
#include "engine/base/sha256.h"
#include "engine/model/gguf_load.h"
#include "engine/model/gguf_writer.h"
#include "engine/model/mapped_file.h"
#include "engine/model/stored_model.h"
#include "engine/model/synthetic.h"
#include "tests/model/gguf_builder.h"
#include "tests/model/gguf_exercise.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

// A folder that is removed at the end of a test.
class TemporaryFolder {
 public:
  TemporaryFolder() : path_(testing::TempDir() + "tandem_split_" + std::to_string(::getpid())) {
    fs::create_directories(path_);
  }
  ~TemporaryFolder() { fs::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::vector<std::string> WriteTiny(const std::string& stem, uint32_t parts) {
  return WriteGgufParts(
      *MakeSyntheticModel(
          {.config = TinyConfig(), .type = DType::kQ4_1, .embedding_type = DType::kQ4_1}),
      stem, parts);
}

std::string MessageOf(const std::function<void()>& load) {
  try {
    load();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kModelFile) << error.what();
    return error.what();
  }
  return "loaded";
}

TEST(GgufSplitTest, EveryPartLeadsToTheWholeModel) {
  const TemporaryFolder folder;
  const auto whole = MakeSyntheticModel(
      {.config = TinyConfig(), .type = DType::kQ4_1, .embedding_type = DType::kQ4_1});
  for (const uint32_t count : {2u, 3u, 20u}) {
    const auto paths = WriteTiny(folder / "tiny.gguf", count);
    ASSERT_EQ(paths.size(), count);
    EXPECT_EQ(paths[0], folder / fmt::format("tiny-00001-of-{:05}.gguf", count));
    std::string all;
    for (const std::string& path : paths) {
      const auto file = MappedFile::Open(path);
      all.append(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
    }
    for (const std::string& path : {paths[0], paths[count - 1]}) {
      const auto model = LoadGguf(path);
      EXPECT_EQ(model->source(), paths[0]);
      EXPECT_EQ(model->weights_hash(), Sha256Hex(all));
      ASSERT_EQ(model->weight_bytes(), whole->weight_bytes());
      for (const auto slot : kLayerSlots) {
        const TensorView& view = model->layers()[1].*slot;
        const TensorView& wanted = whole->layers()[1].*slot;
        if (wanted.rows == 0) continue;
        ASSERT_EQ(std::memcmp(view.data, wanted.data, wanted.bytes()), 0);
      }
    }
  }
}

TEST(GgufSplitTest, PartsShareTheBytesOut) {
  const TemporaryFolder folder;
  const auto paths = WriteTiny(folder / "tiny", 3);
  uint64_t total = 0;
  for (const std::string& path : paths) {
    total += fs::file_size(path);
  }
  for (const std::string& path : paths) {
    EXPECT_LT(fs::file_size(path), total / 2) << path;
  }
  EXPECT_NE(MessageOf([&] { WriteTiny(folder / "tiny", 2); }), "");
  EXPECT_THROW(WriteTiny(folder / "tiny", 1), Error);
  EXPECT_THROW(WriteTiny(folder / "tiny", 21), Error);  // of 20 tensors
}

TEST(GgufSplitTest, NamesThePartThatIsMissing) {
  const TemporaryFolder folder;
  const auto paths = WriteTiny(folder / "tiny", 3);
  fs::remove(paths[1]);
  const std::string message = MessageOf([&] { LoadGguf(paths[2]); });
  EXPECT_NE(message.find(paths[1] + ": part 2 of 3 is missing"), std::string::npos) << message;
}

TEST(GgufSplitTest, NamesThePartThatIsForeign) {
  const TemporaryFolder folder;
  const auto paths = WriteTiny(folder / "tiny", 3);
  const auto expect = [&](const std::string& text) {
    const std::string message = MessageOf([&] { LoadGguf(paths[0]); });
    EXPECT_NE(message.find(text), std::string::npos) << message;
  };
  fs::copy_file(paths[1], folder / "kept");

  fs::copy_file(paths[2], paths[1], fs::copy_options::overwrite_existing);
  expect(paths[1] + ": split.no: 2 (want 1: part 2 of 3 by its place)");

  const auto five = WriteTiny(folder / "other", 5);
  fs::copy_file(five[1], paths[1], fs::copy_options::overwrite_existing);
  expect(paths[1] + ": split.count: 5 (want 3");

  SyntheticSpec larger{.config = TinyConfig()};
  larger.config.n_layers = 3;
  const auto foreign = WriteGgufParts(*MakeSyntheticModel(larger), folder / "larger", 3);
  fs::copy_file(foreign[1], paths[1], fs::copy_options::overwrite_existing);
  expect(paths[1] + ": split.tensors.count: 29 (want 20");

  WriteSyntheticGguf(larger, paths[1]);
  expect(paths[1] + ": split.count: missing");

  fs::rename(folder / "kept", paths[1]);
  EXPECT_NO_THROW(LoadGguf(paths[0]));
  fs::rename(paths[1], folder / "renamed.gguf");
  const std::string message = MessageOf([&] { LoadGguf(folder / "renamed.gguf"); });
  EXPECT_NE(message.find("must end in '-00002-of-00003.gguf'"), std::string::npos) << message;
}

// The tiny llama file as two parts: the embedding and the layer's first tensors, and the rest.
std::vector<GgufBuilder> TinyParts() {
  std::vector<GgufBuilder> parts{TinyLlamaFile(), GgufBuilder()};
  auto& tensors = parts[0].tensors;
  parts[1].tensors.assign(tensors.begin() + 4, tensors.end());
  const auto count = static_cast<uint32_t>(tensors.size());
  tensors.resize(4);
  for (uint16_t no = 0; no < 2; ++no) {
    parts[no].Set("split.no", 2, Raw(no));
    parts[no].Set("split.count", 2, Raw(uint16_t{2}));
    parts[no].Set("split.tensors.count", 5, Raw(count));
  }
  return parts;
}

std::string MessageFor(const std::vector<GgufBuilder>& parts) {
  std::vector<std::string> bytes;
  std::vector<GgufFile> files;
  for (const GgufBuilder& part : parts) {
    bytes.push_back(part.Build());
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    files.push_back({std::as_bytes(std::span(bytes[i])), fmt::format("part{}", i)});
  }
  return MessageOf([&] { LoadGgufFiles(files, nullptr); });
}

void ExpectRefused(const std::function<void(std::vector<GgufBuilder>&)>& spoil,
                   const std::string& text) {
  std::vector<GgufBuilder> parts = TinyParts();
  spoil(parts);
  const std::string message = MessageFor(parts);
  EXPECT_NE(message.find(text), std::string::npos) << message;
}

TEST(GgufSplitTest, RefusesPartsThatContradictEachOther) {
  ASSERT_EQ(MessageFor(TinyParts()), "loaded");
  ExpectRefused([](auto& p) { p.pop_back(); }, "part0: split.count: part 1 of 2 alone");
  ExpectRefused([](auto& p) { p.push_back(p[1]); }, "part0: split.count");
  ExpectRefused([](auto& p) { std::swap(p[0], p[1]); }, "part0: split.no: 1 (want 0");
  ExpectRefused([](auto& p) { p[1].EraseTensor("output_norm.weight"); },
                "the 2 parts hold 10 tensors");
  ExpectRefused([](auto& p) { p[1].tensors[0] = p[0].tensors[1]; },
                "part1: tensor 'blk.0.attn_norm.weight': an earlier part");
  ExpectRefused([](auto& p) { p[1].SetString("general.architecture", "other"); },
                "part1: general.architecture: 'other' (want 'llama'");
  ExpectRefused([](auto& p) { p[1].tensors[0].offset = 1u << 20; }, "part1: tensor");
  for (auto& key : {"split.no", "split.tensors.count"}) {
    ExpectRefused([&](auto& p) { p[0].Erase(key); }, std::string("part0: ") + key);
    ExpectRefused([&](auto& p) { p[1].Erase(key); }, std::string("part1: ") + key);
    ExpectRefused([&](auto& p) { p[1].Set(key, 11, Raw(int64_t{-1})); },
                  std::string("part1: ") + key);
  }
  ExpectRefused([](auto& p) { p[1].Erase("split.count"); }, "part1: split.count: missing");
  ExpectRefused([](auto& p) { p[0].Erase("split.count"); }, "part0: split.count: missing");
  ExpectRefused([](auto& p) { p[0].Set("split.count", 4, Raw(100000u)); }, "want at most 99999");
  ExpectRefused([](auto& p) { p[0].Set("split.no", 4, Raw(2u)); }, "want less than split.count");
}

}  // namespace
}  // namespace tandem
