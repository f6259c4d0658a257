#include "engine/model/gguf_vocabulary.h"

#include <fmt/format.h>

#include <utility>

#include "engine/model/mapped_file.h"

namespace tandem {
namespace {

std::optional<int32_t> TokenId(const GgufMetadata& metadata, const char* key, size_t vocab) {
  const std::optional<uint32_t> id = metadata.FindU32(key);
  if (!id) {
    return std::nullopt;
  }
  if (*id >= vocab) {
    metadata.Refuse(key, fmt::format("{} (the vocabulary has {} tokens)", *id, vocab));
  }
  return static_cast<int32_t>(*id);
}

void RequireOnePerToken(const GgufMetadata& metadata, const char* key, size_t count, size_t vocab) {
  if (metadata.Has(key) && count != vocab) {
    metadata.Refuse(key,
                    fmt::format("{} entries (want one for each of the {} tokens)", count, vocab));
  }
}

// SentencePiece's own ids, for files that do not repeat them: <unk> 0, <s> 1, </s> 2.
void AddSentencePieceDefaults(VocabularyData& data) {
  const auto add = [&data](std::optional<int32_t>& id, int32_t usual, const char* spelling) {
    const auto at = static_cast<size_t>(usual);
    if (!id && at < data.tokens.size() && data.tokens[at] == spelling) id = usual;
  };
  add(data.unk, 0, "<unk>");
  add(data.bos, 1, "<s>");
  add(data.eos, 2, "</s>");
}

}  // namespace

std::optional<VocabularyData> ReadVocabularyData(const GgufMetadata& metadata,
                                                 std::optional<uint32_t> rows) {
  const std::optional<std::string> model = metadata.FindString("tokenizer.ggml.model");
  if (!model || *model == "no_vocab" || *model == "none") {
    return std::nullopt;
  }
  VocabularyData data{.model = *model};
  data.pre = metadata.FindString("tokenizer.ggml.pre").value_or("default");
  data.tokens = metadata.Strings("tokenizer.ggml.tokens");
  const size_t vocab = data.tokens.size();
  if (rows && vocab != *rows) {
    metadata.Refuse("tokenizer.ggml.tokens",
                    fmt::format("{} tokens (want {}, the rows of the embedding)", vocab, *rows));
  }
  data.types = metadata.Int32s("tokenizer.ggml.token_type");
  RequireOnePerToken(metadata, "tokenizer.ggml.token_type", data.types.size(), vocab);
  data.scores = metadata.Floats("tokenizer.ggml.scores");
  RequireOnePerToken(metadata, "tokenizer.ggml.scores", data.scores.size(), vocab);
  data.merges = metadata.Strings("tokenizer.ggml.merges");
  data.bos = TokenId(metadata, "tokenizer.ggml.bos_token_id", vocab);
  data.eos = TokenId(metadata, "tokenizer.ggml.eos_token_id", vocab);
  data.eot = TokenId(metadata, "tokenizer.ggml.eot_token_id", vocab);
  data.eom = TokenId(metadata, "tokenizer.ggml.eom_token_id", vocab);
  data.unk = TokenId(metadata, "tokenizer.ggml.unknown_token_id", vocab);
  data.pad = TokenId(metadata, "tokenizer.ggml.padding_token_id", vocab);
  data.add_bos = metadata.FindBool("tokenizer.ggml.add_bos_token");
  if (const auto prefix = metadata.FindBool("tokenizer.ggml.add_space_prefix")) {
    data.space_prefix = *prefix ? SpacePrefix::kEachPiece : SpacePrefix::kNone;
  }
  if (data.model == "llama") {
    // The scores hold for these files; some carry merges besides.
    if (!data.scores.empty()) data.merges = {};
    AddSentencePieceDefaults(data);
  }
  return data;
}

StoredVocabulary LoadVocabulary(const std::string& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::Open(path);
  const GgufHeader header = ReadGgufHeader(file->bytes(), path);
  StoredVocabulary stored;
  if (std::optional<VocabularyData> data = ReadVocabularyData(header.metadata, std::nullopt)) {
    stored.tokenizer = MakeTokenizer(std::move(*data), path);
  }
  stored.chat_template = header.metadata.FindString("tokenizer.chat_template").value_or("");
  return stored;
}

}  // namespace tandem
