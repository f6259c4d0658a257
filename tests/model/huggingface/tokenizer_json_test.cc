// tokenizer.json and its neighbours: ids as the `tokenizers` package gives them
// (tools/make-tokenizer-json-golden), and what each wrong field is told.
#include "engine/model/huggingface/tokenizer_json.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <sstream>

#include "engine/base/error.h"
#include "tests/model/huggingface/safetensors_builder.h"

namespace tandem {
namespace {

using nlohmann::json;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path << ": run from the repository's root";
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string Golden(const std::string& kind) {
  return ReadFile("tests/golden/huggingface/" + kind + "/tokenizer.json");
}

FolderBuilder FolderOf(const std::string& kind) {
  const bool marked = kind == "llama2" || kind == "mistral";
  const json settings = {{"bos_token", marked ? "<s>" : "<|begin|>"},
                         {"eos_token", {{"content", marked ? "</s>" : "<|end|>"}}}};
  return {.files = {{"tokenizer.json", Golden(kind)}, {"tokenizer_config.json", settings.dump()}}};
}

std::optional<VocabularyData> Read(const FolderBuilder& folder,
                                   std::optional<uint32_t> rows = std::nullopt) {
  return ReadHuggingFaceVocabulary(folder.Files(), rows);
}

class TokenizerJsonGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerJsonGoldenTest, EncodesAsTheOracle) {
  const std::string kind = GetParam();
  const json golden = json::parse(ReadFile("tests/golden/huggingface/cases.json")).at(kind);
  std::optional<VocabularyData> data = Read(FolderOf(kind));
  ASSERT_TRUE(data);
  EXPECT_EQ(data->pre, golden.at("pre").get<std::string>());
  EXPECT_EQ(data->tokens.size(), golden.at("vocab").get<size_t>());
  const auto tokenizer = MakeTokenizer(*std::move(data), kind);
  const std::vector<int32_t> bos{*tokenizer->bos()};
  int checked = 0;
  for (const json& entry : golden.at("cases")) {
    const auto text = entry.at("text").get<std::string>();
    const auto wanted = entry.at("ids").get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer->Encode(text, {.parse_special = true}), wanted) << entry.dump();
    const auto with_bos = entry.at("ids_with_bos").get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer->adds_bos(), with_bos.size() > wanted.size());
    if (wanted.empty() || wanted[0] != bos[0]) {
      EXPECT_EQ(tokenizer->Encode(text, {.parse_special = true, .add_bos = tokenizer->adds_bos()}),
                with_bos)
          << entry.dump();
    }
    ++checked;
  }
  EXPECT_GT(checked, 15);
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerJsonGoldenTest,
                         testing::Values("gpt2", "smollm", "llama3", "qwen2", "llama2", "mistral"),
                         [](const auto& info) { return std::string(info.param); });

void ExpectRefused(const std::string& kind, const std::function<void(json&)>& spoil,
                   const std::string& what, ErrorCode code = ErrorCode::kModelFile) {
  FolderBuilder folder = FolderOf(kind);
  json document = json::parse(folder.files["tokenizer.json"]);
  spoil(document);
  folder.files["tokenizer.json"] = document.dump();
  try {
    MakeTokenizer(*Read(folder), "folder/tokenizer.json");
    ADD_FAILURE() << "read, but should say " << what;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find("folder/tokenizer.json"), std::string::npos)
        << error.what();
    EXPECT_NE(std::string(error.what()).find(what), std::string::npos) << error.what();
  }
}

TEST(TokenizerJsonTest, RefusesVocabulariesThatAreNone) {
  ExpectRefused("gpt2", [](json& t) { t = json::array(); }, "want an object");
  ExpectRefused("gpt2", [](json& t) { t.erase("model"); }, "model: missing");
  for (const char* key : {"vocab", "merges"}) {
    ExpectRefused("gpt2", [&](json& t) { t["model"].erase(key); }, key);
    for (const char* value :
         {"null", "7", "\"a\"", "[[]]", "[{}]", "{\"a\": -1}", "{\"a\": 1.5}"}) {
      ExpectRefused("gpt2", [&](json& t) { t["model"][key] = json::parse(value); }, "");
    }
  }
  ExpectRefused("gpt2", [](json& t) { t["model"]["vocab"]["new"] = 0; }, "both have id 0");
  ExpectRefused("gpt2", [](json& t) { t["model"]["vocab"][""] = 318; }, "");
  ExpectRefused("gpt2", [](json& t) { t["model"]["vocab"]["far"] = 1u << 30; }, "want less than");
  ExpectRefused("gpt2", [](json& t) { t["model"]["merges"][0] = "a"; }, "merge 0");
  ExpectRefused("gpt2", [](json& t) { t["model"]["merges"][0] = {"a b", "c"}; }, "merge 0");
  ExpectRefused("gpt2", [](json& t) { t["model"]["merges"][0] = {"zz", "qq"}; }, "merge 0");
  ExpectRefused("gpt2", [](json& t) { t["added_tokens"] = 3; }, "added_tokens");
  ExpectRefused("gpt2", [](json& t) { t["added_tokens"][0] = 3; }, "want an object");
  ExpectRefused("gpt2", [](json& t) { t["added_tokens"][0]["id"] = 0; }, "both have id 0");
  ExpectRefused("gpt2", [](json& t) { t["added_tokens"][0].erase("content"); }, "empty");
  ExpectRefused("gpt2", [](json& t) { t["added_tokens"][0]["special"] = "yes"; }, "special");
}

TEST(TokenizerJsonTest, RefusesWhatIsLargerThanAnyTokenizer) {
  const auto message = [](const std::string& text) -> std::string {
    FolderBuilder folder = FolderOf("gpt2");
    folder.files["tokenizer.json"] = text;
    try {
      Read(folder);
    } catch (const Error& error) {
      return error.what();
    }
    return "read";
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(has(message(std::string((64u << 20) + 1, ' ')), "want at most 67108864"));
  EXPECT_TRUE(has(message(std::string(1'000'000, '[')), "nested more than 32 deep"));
  std::string many = "{\"added_tokens\": [0";
  for (int i = 0; i < (1 << 22); ++i) many += ",0";
  EXPECT_TRUE(has(message(many + "]}"), "more than 4194304 values"));
}

TEST(TokenizerJsonTest, NamesStepsThatItDoesNotDo) {
  const auto expect = [](const std::string& kind, const std::function<void(json&)>& spoil,
                         const std::string& what) {
    ExpectRefused(kind, spoil, what, ErrorCode::kUnsupported);
  };
  expect("gpt2", [](json& t) { t["model"]["type"] = "Unigram"; }, "model: 'Unigram' (want BPE)");
  expect("gpt2", [](json& t) { t["model"]["end_of_word_suffix"] = "</w>"; }, "end_of_word_suffix");
  expect("gpt2", [](json& t) { t["normalizer"] = {{"type", "Lowercase"}}; }, "'Lowercase'");
  expect("gpt2", [](json& t) { t["pre_tokenizer"] = {{"type", "Whitespace"}}; }, "'Whitespace'");
  expect("gpt2", [](json& t) { t["pre_tokenizer"] = nullptr; }, "splits words by nothing");
  expect("gpt2", [](json& t) { t["pre_tokenizer"]["add_prefix_space"] = true; }, "add_prefix");
  expect(
      "llama3",
      [](json& t) { t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "\\w+"; },
      "splits words by '\\w+'");
  expect(
      "llama3", [](json& t) { t["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; },
      "'Removed'");
  expect("gpt2", [](json& t) { t["added_tokens"][0]["single_word"] = true; }, "single_word");
  expect("mistral", [](json& t) { t["pre_tokenizer"]["split"] = true; }, "'Metaspace'");
  expect("mistral", [](json& t) { t["pre_tokenizer"] = nullptr; }, "spaces stay spaces");
  expect("mistral", [](json& t) { t["pre_tokenizer"]["prepend_scheme"] = "often"; }, "'often'");
  expect(
      "llama2", [](json& t) { t["normalizer"]["normalizers"][1]["content"] = "_"; }, "'Replace'");
}

TEST(TokenizerJsonTest, ComposesTextWhenTheFileAsksForIt) {
  FolderBuilder folder = FolderOf("qwen2");
  json document = json::parse(folder.files["tokenizer.json"]);
  const auto composes = [&](const char* normalizer) {
    document["normalizer"] = json::parse(normalizer);
    folder.files["tokenizer.json"] = document.dump();
    return Read(folder)->composes;
  };
  EXPECT_EQ(composes(R"({"type": "NFC"})"), true);
  EXPECT_EQ(composes(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}]})"), true);
  EXPECT_EQ(composes(R"({"type": "Sequence", "normalizers": []})"), false);
  EXPECT_EQ(composes("null"), false);
  ExpectRefused(
      "qwen2", [](json& t) { t["normalizer"] = {{"type", "NFKC"}}; }, "'NFKC'",
      ErrorCode::kUnsupported);
}

TEST(TokenizerJsonTest, TheEmbeddingMayHaveRowsThatNoTokenNames) {
  const std::optional<VocabularyData> data = Read(FolderOf("qwen2"), 400);
  EXPECT_EQ(data->tokens.size(), 400u);
  EXPECT_EQ(data->tokens[399], "");
  EXPECT_EQ(data->types[399], 5);
  EXPECT_EQ(MakeTokenizer(*data, "x")->vocab_size(), 400u);
  EXPECT_THROW(Read(FolderOf("qwen2"), 300), Error);
}

TEST(TokenizerJsonTest, EndsComeFromAllFilesThatNameThem) {
  FolderBuilder folder = FolderOf("llama3");
  folder.config = {{"eos_token_id", 7}};
  folder.files["generation_config.json"] = R"({"eos_token_id": [5, 6], "bos_token_id": 1})";
  const auto data = Read(folder);
  const auto tokenizer = MakeTokenizer(*data, "x");
  EXPECT_EQ(tokenizer->TokenText(*tokenizer->eos()), "<|end|>");
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(5));
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(6));
  EXPECT_FALSE(tokenizer->IsEndOfGeneration(8));
  EXPECT_TRUE(tokenizer->adds_bos());
  folder.files["tokenizer_config.json"] = R"({"bos_token": "<|begin|>", "add_bos_token": false})";
  EXPECT_FALSE(MakeTokenizer(*Read(folder), "x")->adds_bos());
  EXPECT_EQ(*Read(folder)->eos, 5);
  folder.files["generation_config.json"] = R"({"eos_token_id": 999})";
  EXPECT_THROW(Read(folder), Error);
  folder.files["generation_config.json"] = "[]";
  EXPECT_THROW(Read(folder), Error);
  folder.files.erase("generation_config.json");
  folder.files["tokenizer_config.json"] = R"({"bos_token": "<none>"})";
  EXPECT_THROW(Read(folder), Error);
}

TEST(TokenizerJsonTest, TemplatesComeFromTheirOwnFileOrTheSettings) {
  FolderBuilder folder;
  const auto read = [&] { return ReadHuggingFaceChatTemplate(folder.Files()); };
  EXPECT_EQ(read(), "");
  folder.files["tokenizer_config.json"] = R"({"chat_template": "one"})";
  EXPECT_EQ(read(), "one");
  folder.files["tokenizer_config.json"] =
      R"({"chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}, 3]})";
  EXPECT_EQ(read(), "d");
  folder.files["chat_template.jinja"] = "own";
  EXPECT_EQ(read(), "own");
}

TEST(TokenizerJsonTest, AFolderWithATokenizerLoadsWithIt) {
  FolderBuilder folder = TinyLlamaFolder();
  const FolderBuilder text = FolderOf("smollm");
  folder.files.insert(text.files.begin(), text.files.end());
  folder.files["chat_template.jinja"] = "{{ messages[0].content }}";
  EXPECT_THROW(folder.Load(), Error);  // 319 tokens, 8 rows
  SafetensorsBuilder file = TinyLlamaTensors(DType::kBF16);
  SafetensorsBuilder larger;
  for (const auto& [name, entry] : file.header.items()) {
    if (name == "model.embed_tokens.weight") {
      larger.Add(name, {320, 16}, DType::kBF16);
    } else if (name != "__metadata__") {
      larger.Add(name, entry["shape"], DType::kBF16);
    }
  }
  folder.files["model.safetensors"] = larger.Build();
  folder.config["vocab_size"] = 320;
  const auto model = folder.Load();
  ASSERT_NE(model->tokenizer(), nullptr);
  EXPECT_EQ(model->tokenizer()->vocab_size(), 320u);
  EXPECT_EQ(model->chat_template(), "{{ messages[0].content }}");
}

}  // namespace
}  // namespace tandem
