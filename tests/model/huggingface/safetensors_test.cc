// Safetensors files: what loads, and what each wrong field is told.
#include "engine/model/huggingface/safetensors.h"

#include <gtest/gtest.h>

#include <functional>

#include "engine/base/error.h"
#include "tests/model/huggingface/safetensors_builder.h"

namespace tandem {
namespace {

SafetensorsHeader Read(const std::string& content) {
  const std::vector<char> bytes(content.begin(), content.end());
  return ReadSafetensorsHeader(std::as_bytes(std::span(bytes)), "bad.safetensors");
}

void ExpectRefused(const std::string& content, const std::string& what) {
  try {
    Read(content);
    ADD_FAILURE() << "read, but should say " << what;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kModelFile) << error.what();
    EXPECT_NE(std::string(error.what()).find("bad.safetensors"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
  }
}

SafetensorsBuilder TwoTensors() {
  SafetensorsBuilder file;
  file.Add("a", {2, 3}, DType::kF32);
  file.Add("b", {4}, DType::kBF16);
  return file;
}

void ExpectRefused(const std::function<void(SafetensorsBuilder&)>& spoil, const std::string& what) {
  SafetensorsBuilder file = TwoTensors();
  spoil(file);
  ExpectRefused(file.Build(), what);
}

TEST(SafetensorsTest, ReadsShapesTypesAndPlaces) {
  const std::string content = TwoTensors().Build();
  const SafetensorsHeader header = Read(content);
  ASSERT_EQ(header.tensors.size(), 2u);
  EXPECT_EQ(header.tensors[0].name, "a");
  EXPECT_EQ(header.tensors[1].dtype, "BF16");
  const auto bytes = std::as_bytes(std::span(content));
  const TensorView a = LocateSafetensor(header.tensors[0], header, bytes, "x");
  EXPECT_EQ(a.rows, 2u);
  EXPECT_EQ(a.cols, 3u);
  EXPECT_EQ(a.data, bytes.data() + header.data_begin);
  const TensorView b = LocateSafetensor(header.tensors[1], header, bytes, "x");
  EXPECT_EQ(b.rows, 1u);
  EXPECT_EQ(b.cols, 4u);
  EXPECT_EQ(b.data, a.data + a.bytes());
}

TEST(SafetensorsTest, ReadsWhatTheFormatAllowsBesideModels) {
  SafetensorsBuilder file = TwoTensors();
  file.Add("scalar", "F64", {}, std::string(8, '\0'));
  file.Add("none", "I64", {0, 7}, "");
  file.Add("bits", "F4", {3}, "ab");  // a type tandem does not know has no size to check
  const SafetensorsHeader header = Read(file.Build());
  EXPECT_EQ(header.tensors.size(), 5u);
  EXPECT_EQ(Read(SafetensorsBuilder::Build("{}    ", "")).tensors.size(), 0u);
}

TEST(SafetensorsTest, RefusesHeadersThatTheFileCannotHold) {
  ExpectRefused("", "0 bytes");
  ExpectRefused("1234567", "7 bytes");
  const std::string whole = TwoTensors().Build();
  for (const uint64_t length : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 20, uint64_t{1} << 63,
                                ~uint64_t{0}, ~uint64_t{0} - 7}) {
    std::string content = whole;
    std::memcpy(content.data(), &length, sizeof(length));
    ExpectRefused(content, "");
  }
  for (size_t size = 0; size < whole.size(); ++size) {
    ExpectRefused(whole.substr(0, size), "");
  }
  ExpectRefused(whole + "x", "33 bytes of data, of which 32 belong");
}

TEST(SafetensorsTest, RefusesHeadersThatAreNoTable) {
  for (const char* text : {"", "[]", "7", "null", "\"a\"", "{", "{\"a\"}", "{]", "{\"a\":{}}x",
                           "{\"a\":\"\\ud800\"}", "{\"a\":\"\xff\"}", "{\"a\":1e999}"}) {
    ExpectRefused(SafetensorsBuilder::Build(text, ""), "");
  }
  ExpectRefused(SafetensorsBuilder::Build(std::string(100000, '['), ""), "nested more than 8 deep");
  std::string many = "{\"a\":[0";
  for (int i = 0; i < 1400000; ++i) {
    many += ",0";
  }
  ExpectRefused(SafetensorsBuilder::Build(many + "]}", ""), "more than 1310720 values");
  ExpectRefused(SafetensorsBuilder::Build("{\"a\":{},\"a\":{}}", ""), "key 'a' appears twice");
}

TEST(SafetensorsTest, RefusesEntriesThatAreNoTensor) {
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    ExpectRefused([&](auto& f) { f.header["a"].erase(key); }, std::string(key) + " is missing");
    for (const char* value : {"null", "{}", "[[]]", "true", "[-1, 2]", "[0.5, 2]", "[\"1\"]"}) {
      ExpectRefused([&](auto& f) { f.header["a"][key] = nlohmann::ordered_json::parse(value); },
                    key);
    }
  }
  ExpectRefused([](auto& f) { f.header["a"] = 3; }, "dtype is missing");
  ExpectRefused([](auto& f) { f.header["a"]["shape"] = "F32"; }, "shape");
  ExpectRefused([](auto& f) { f.header["a"]["data_offsets"] = {0}; }, "data_offsets");
  ExpectRefused([](auto& f) { f.header["a"]["data_offsets"] = {0, 8, 24}; }, "data_offsets");
}

TEST(SafetensorsTest, RefusesRangesThatDoNotFit) {
  const auto offsets = [](uint64_t begin, uint64_t end) {
    return [=](SafetensorsBuilder& f) { f.header["a"]["data_offsets"] = {begin, end}; };
  };
  ExpectRefused(offsets(24, 0), "not before it");
  ExpectRefused(offsets(0, 33), "the file is truncated");
  ExpectRefused(offsets(0, ~uint64_t{0}), "the file is truncated");
  ExpectRefused(offsets(~uint64_t{0} - 23, ~uint64_t{0}), "the file is truncated");
  ExpectRefused(offsets(0, 20), "20 bytes (want 24");
  ExpectRefused(offsets(8, 32), "bytes 0 to 8 before it belong to no tensor");
  ExpectRefused([](auto& f) { f.header["b"]["data_offsets"] = {16, 24}; }, "shares bytes");
  ExpectRefused([](auto& f) { f.header["b"]["data_offsets"] = {0, 8}; }, "shares bytes");
  ExpectRefused([](auto& f) { f.header.erase("a"); }, "bytes 0 to 24 before it");
  ExpectRefused([](auto& f) { f.header.erase("b"); }, "32 bytes of data, of which 24");
  ExpectRefused([](auto& f) { f.header["a"]["dtype"] = "F16"; }, "24 bytes (want 12");
  ExpectRefused([](auto& f) { f.header["a"]["shape"] = {2, 4}; }, "24 bytes (want 32");
  ExpectRefused([](auto& f) { f.header["a"]["shape"] = {uint64_t{1} << 62, 4}; }, "64 bits");
  ExpectRefused([](auto& f) { f.header["a"]["shape"] = {uint64_t{1} << 32, uint64_t{1} << 32}; },
                "64 bits");
  ExpectRefused([](auto& f) { f.header["a"]["shape"] = {0, uint64_t{1} << 63, 4}; }, "want 0");
}

TEST(SafetensorsTest, NamesTypesAndShapesThatAreNoWeights) {
  SafetensorsBuilder file;
  file.Add("f8", "F8_E4M3", {4}, "abcd");
  file.Add("f4", "F4", {4}, "ab");
  file.Add("cube", "F16", {1, 1, 2}, "abcd");
  file.Add("scalar", "F16", {}, "ab");
  const std::string content = file.Build();
  const SafetensorsHeader header = Read(content);
  const auto locate = [&](size_t i) -> std::string {
    try {
      LocateSafetensor(header.tensors[i], header, std::as_bytes(std::span(content)), "x");
    } catch (const Error& error) {
      return error.what();
    }
    return "located";
  };
  EXPECT_EQ(locate(0),
            "safetensors: x: tensor 'f8': element type 'F8_E4M3' (tandem reads F32, F16 and BF16)");
  EXPECT_NE(locate(1).find("element type 'F4'"), std::string::npos);
  EXPECT_NE(locate(2).find("3 dimensions"), std::string::npos);
  EXPECT_NE(locate(3).find("0 dimensions"), std::string::npos);
}

}  // namespace
}  // namespace tandem
