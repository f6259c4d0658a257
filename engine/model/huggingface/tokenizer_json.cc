#include "engine/model/huggingface/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "engine/base/error.h"
#include "engine/model/gguf.h"
#include "engine/model/huggingface/tokenizer_steps.h"
#include "engine/model/text/vocabulary.h"

namespace tandem {
namespace {

using nlohmann::json;

// The largest vocabularies have 260,000 tokens and 600,000 merges of two strings.
constexpr JsonLimits kTokenizerLimits = {.bytes = 64u << 20, .depth = 32, .values = 1u << 22};
constexpr JsonLimits kSettingsLimits = {.bytes = 16u << 20, .depth = 32, .values = 1u << 18};

// tokenizer.json's tokens, merges and added tokens.
class TokenReader {
 public:
  TokenReader(const json& document, const std::string& source, std::optional<uint32_t> rows)
      : document_(document), source_(source), rows_(rows), most_(rows.value_or(0)) {}

  void Read(VocabularyData& data) {
    const json& model = Object(document_, "model");
    data.tokens.resize(rows_.value_or(0));
    const json& vocab = Object(model, "vocab");
    if (!rows_) {
      // Ids may have holes, but not so many that a small file takes much memory.
      const json added = document_.value("added_tokens", json::array());
      most_ = static_cast<uint32_t>(2 * (vocab.size() + added.size()) + 1024);
    }
    for (const auto& [token, id] : vocab.items()) {
      Place(token, Id(id, token), data);
    }
    data.types.assign(data.tokens.size(), text::kTypeNormal);
    ReadMerges(model, data);
    if (data.model == "llama") {
      MarkBytes(data);
      MarkUnknown(model, data);
    } else {
      data.ignore_merges = model.value("ignore_merges", json(false)) == json(true);
    }
    ReadAdded(data);
    for (size_t i = 0; i < data.tokens.size(); ++i) {
      if (data.tokens[i].empty()) {
        data.types[i] = text::kTypeUnused;
      }
    }
  }

 private:
  [[noreturn]] void Refuse(const std::string& problem) const {
    Fail(ErrorCode::kModelFile, fmt::format("tokenizer: {}: {}", source_, problem));
  }

  const json& Object(const json& parent, const char* key) const {
    if (!parent.is_object() || !parent.contains(key) || !parent.at(key).is_object()) {
      Refuse(fmt::format("{}: missing (want an object)", key));
    }
    return parent.at(key);
  }

  uint32_t Id(const json& value, const std::string& token) const {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= most_) {
      Refuse(fmt::format("token {}: id {} (want less than {})", QuoteForMessage(token),
                         QuoteJson(value), most_));
    }
    return static_cast<uint32_t>(value.get<uint64_t>());
  }

  void Place(const std::string& token, uint32_t id, VocabularyData& data) const {
    if (token.empty()) {
      Refuse(fmt::format("token {} is empty", id));
    }
    if (id >= data.tokens.size()) {
      data.tokens.resize(id + 1);
    }
    if (!data.tokens[id].empty() && data.tokens[id] != token) {
      Refuse(fmt::format("tokens {} and {} both have id {}", QuoteForMessage(data.tokens[id]),
                         QuoteForMessage(token), id));
    }
    data.tokens[id] = token;
  }

  // "left right", or ["left", "right"].
  void ReadMerges(const json& model, VocabularyData& data) const {
    const auto found = model.find("merges");
    if (found == model.end() || !found->is_array() || found->empty()) {
      Refuse("merges: missing (want an array)");
    }
    const json& merges = *found;
    for (const json& merge : merges) {
      std::string text;
      if (merge.is_string()) {
        text = merge.get<std::string>();
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
                 merge[1].is_string()) {
        const auto left = merge[0].get<std::string>();
        const auto right = merge[1].get<std::string>();
        if (left.find(' ') == std::string::npos && right.find(' ') == std::string::npos) {
          text = left + ' ' + right;
        }
      }
      if (text.empty()) {
        Refuse(fmt::format("merge {} (want two tokens without spaces)", data.merges.size()));
      }
      data.merges.push_back(std::move(text));
    }
  }

  static void MarkBytes(VocabularyData& data) {
    for (size_t i = 0; i < data.tokens.size(); ++i) {
      if (text::ByteOfHex(data.tokens[i])) {
        data.types[i] = text::kTypeByte;
      }
    }
  }

  static void MarkUnknown(const json& model, VocabularyData& data) {
    const json unknown = model.value("unk_token", json());
    if (!unknown.is_string()) {
      return;
    }
    const auto it = std::find(data.tokens.begin(), data.tokens.end(), unknown.get<std::string>());
    if (it != data.tokens.end()) {
      data.unk = static_cast<int32_t>(it - data.tokens.begin());
    }
  }

  void ReadAdded(VocabularyData& data) const {
    const json added = document_.value("added_tokens", json::array());
    if (!added.is_array()) {
      Refuse("added_tokens (want an array)");
    }
    for (const json& entry : added) {
      const JsonFields fields(entry, source_);
      const std::string content = fields.FindString("content").value_or("");
      const uint32_t id = Id(entry.value("id", json()), content);
      Place(content, id, data);
      data.types.resize(data.tokens.size(), text::kTypeNormal);
      if (fields.FindBool("single_word").value_or(false)) {
        fields.RefuseUnsupported("added_tokens",
                                 QuoteForMessage(content) + " is found as a single_word only");
      }
      const bool special = fields.FindBool("special").value_or(false);
      const bool unknown = data.unk == static_cast<int32_t>(id);
      data.types[id] = unknown   ? text::kTypeUnknown
                       : special ? text::kTypeControl
                                 : text::kTypeUserDefined;
      if (fields.FindBool("lstrip").value_or(false)) {
        data.strip_left.push_back(static_cast<int32_t>(id));
      }
      if (fields.FindBool("rstrip").value_or(false)) {
        data.strip_right.push_back(static_cast<int32_t>(id));
      }
    }
  }

  const json& document_;
  const std::string& source_;
  std::optional<uint32_t> rows_;
  uint32_t most_;  // ids are below it
};

json ObjectOf(const HuggingFaceFiles& files, const char* name) {
  const std::optional<json> document = files.Json(name, kSettingsLimits);
  if (document && !document->is_object()) {
    Fail(ErrorCode::kModelFile, fmt::format("model: {}: want an object", files.PathOf(name)));
  }
  return document.value_or(json::object());
}

// A token as tokenizer_config.json gives it: its text, or an object with it; "" when it has none.
std::string TokenText(const json& settings, const char* key) {
  const json value = settings.value(key, json());
  if (value.is_string()) {
    return value.get<std::string>();
  }
  const json content = value.is_object() ? value.value("content", json()) : json();
  return content.is_string() ? content.get<std::string>() : "";
}

// Which tokens begin and end texts: tokenizer_config.json by their text, generation_config.json and
// config.json by id, one or several.
class NamedTokens {
 public:
  NamedTokens(const HuggingFaceFiles& files, VocabularyData& data)
      : files_(files), settings_(ObjectOf(files, "tokenizer_config.json")), data_(data) {}

  void Read(const json& document) {
    data_.bos = ByText("bos_token");
    data_.pad = ByText("pad_token");
    const std::optional<int32_t> eos = ByText("eos_token");
    std::vector<int32_t> ends;
    if (eos) {
      ends.push_back(*eos);
    }
    for (const char* name : {"generation_config.json", "config.json"}) {
      const json config = ObjectOf(files_, name);
      AddIds(name, "eos_token_id", config, ends);
      std::vector<int32_t> begins;
      AddIds(name, "bos_token_id", config, begins);
      if (!data_.bos && !begins.empty() && settings_.empty()) {
        data_.bos = begins[0];
      }
    }
    const auto end = [&](size_t i) {
      return i < ends.size() ? std::optional<int32_t>(ends[i]) : std::nullopt;
    };
    data_.eos = end(0);
    data_.eot = end(1);
    data_.eom = end(2);
    const std::optional<bool> says =
        JsonFields(settings_, settings_path_).FindBool("add_bos_token");
    data_.add_bos = says.value_or(data_.bos && StartsWithToken(document, data_.tokens[*data_.bos]));
  }

 private:
  std::optional<int32_t> ByText(const char* key) const {
    const std::string text = TokenText(settings_, key);
    if (text.empty()) {
      return std::nullopt;
    }
    const auto it = std::find(data_.tokens.begin(), data_.tokens.end(), text);
    if (it == data_.tokens.end()) {
      Fail(ErrorCode::kModelFile, fmt::format("tokenizer: {}: {}: {} is no token of tokenizer.json",
                                              settings_path_, key, QuoteForMessage(text)));
    }
    return static_cast<int32_t>(it - data_.tokens.begin());
  }

  void AddIds(const char* name, const char* key, const json& config,
              std::vector<int32_t>& ids) const {
    json value = config.value(key, json());
    if (value.is_null()) {
      return;
    }
    if (!value.is_array()) {
      value = json::array({value});
    }
    for (const json& id : value) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= data_.tokens.size()) {
        Fail(ErrorCode::kModelFile,
             fmt::format("tokenizer: {}: {}: {} (want an id below {})", files_.PathOf(name), key,
                         QuoteJson(id), data_.tokens.size()));
      }
      const auto number = static_cast<int32_t>(id.get<uint64_t>());
      if (std::find(ids.begin(), ids.end(), number) == ids.end()) {
        ids.push_back(number);
      }
    }
  }

  const HuggingFaceFiles& files_;
  std::string settings_path_ = files_.PathOf("tokenizer_config.json");
  json settings_;
  VocabularyData& data_;
};

}  // namespace

std::optional<VocabularyData> ReadHuggingFaceVocabulary(const HuggingFaceFiles& files,
                                                        std::optional<uint32_t> rows) {
  static constexpr char kName[] = "tokenizer.json";
  const std::optional<json> document = files.Json(kName, kTokenizerLimits);
  if (!document) {
    return std::nullopt;
  }
  const std::string source = files.PathOf(kName);
  if (!document->is_object()) {
    Fail(ErrorCode::kModelFile, fmt::format("tokenizer: {}: want an object", source));
  }
  VocabularyData data;
  ReadTokenizerSteps(*document, source, data);
  TokenReader(*document, source, rows).Read(data);
  NamedTokens(files, data).Read(*document);
  return data;
}

std::string ReadHuggingFaceChatTemplate(const HuggingFaceFiles& files) {
  if (const std::optional<std::string_view> text = files.Text("chat_template.jinja")) {
    return std::string(*text);
  }
  const json value = ObjectOf(files, "tokenizer_config.json").value("chat_template", json());
  if (value.is_string()) {
    return value.get<std::string>();
  }
  std::string first;
  for (const json& entry : value.is_array() ? value : json::array()) {
    const std::string text = TokenText(entry.is_object() ? entry : json::object(), "template");
    if (first.empty() || (entry.is_object() && entry.value("name", json()) == json("default"))) {
      first = text;
    }
  }
  return first;
}

}  // namespace tandem
