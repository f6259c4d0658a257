#include "engine/model/huggingface/tokenizer_steps.h"

#include <fmt/format.h>

#include <vector>

#include "engine/base/error.h"
#include "engine/model/gguf.h"
#include "engine/model/huggingface/bounded_json.h"
#include "engine/model/text/pre_tokenizer.h"

namespace tandem {
namespace {

using nlohmann::json;

constexpr char kSpaceMark[] = "\xE2\x96\x81";  // U+2581

[[noreturn]] void Refuse(const std::string& source, const std::string& what) {
  Fail(ErrorCode::kUnsupported, fmt::format("tokenizer: {}: {}", source, what));
}

// A member of an object that may be none; null when it is not there.
const json& Member(const json& object, const char* key) {
  static const json kNull;
  if (!object.is_object()) {
    return kNull;
  }
  const auto it = object.find(key);
  return it == object.end() ? kNull : *it;
}

std::string Text(const json& object, const char* key) {
  const json& value = Member(object, key);
  return value.is_string() ? value.get<std::string>() : "";
}

bool Flag(const json& object, const char* key, bool otherwise) {
  const json& value = Member(object, key);
  return value.is_boolean() ? value.get<bool>() : otherwise;
}

// A step, or the steps of a Sequence in their order; `list` is what this kind of Sequence calls
// them.
void Flatten(const json& step, const char* list, std::vector<const json*>& steps) {
  if (step.is_null()) {
    return;
  }
  const json& inner = Member(step, list);
  if (Text(step, "type") == "Sequence" && inner.is_array()) {
    for (const json& entry : inner) {
      Flatten(entry, list, steps);
    }
    return;
  }
  steps.push_back(&step);
}

std::vector<const json*> Steps(const json& document, const char* key, const char* list) {
  std::vector<const json*> steps;
  Flatten(Member(document, key), list, steps);
  return steps;
}

// One step of the words' splitting, as PreTokenizerNamed spells it; "" for one that splits nothing.
std::string ExpressionOf(const json& step, const std::string& source) {
  const std::string type = Text(step, "type");
  if (type == "Split") {
    const json& pattern = Member(step, "pattern");
    const std::string regex = Text(pattern, "Regex");
    if (regex.empty() || Text(step, "behavior") != "Isolated" || Flag(step, "invert", false)) {
      Refuse(source, fmt::format("pre_tokenizer: a Split by {}, {} (want a Regex, Isolated)",
                                 regex.empty() ? "text" : "a Regex",
                                 QuoteForMessage(Text(step, "behavior"))));
    }
    return regex;
  }
  if (type == "Digits") {
    if (!Flag(step, "individual_digits", false)) {
      Refuse(source, "pre_tokenizer: Digits in groups (want individual_digits)");
    }
    return R"(\p{N})";
  }
  if (type == "ByteLevel") {
    if (Flag(step, "add_prefix_space", true)) {
      Refuse(source, "pre_tokenizer: ByteLevel with add_prefix_space (want none)");
    }
    return Flag(step, "use_regex", true) ? "ByteLevel" : "";
  }
  Refuse(source,
         fmt::format("pre_tokenizer: {} (want Split, Digits or ByteLevel)", QuoteForMessage(type)));
}

void ReadByteLevel(const json& document, const std::string& source, VocabularyData& data) {
  data.model = "gpt2";
  data.composes = false;
  for (const json* step : Steps(document, "normalizer", "normalizers")) {
    const std::string type = Text(*step, "type");
    if (type != "NFC") {
      Refuse(source, fmt::format("normalizer: {} (want none, or NFC)", QuoteForMessage(type)));
    }
    data.composes = true;
  }
  std::vector<std::string> expressions;
  for (const json* step : Steps(document, "pre_tokenizer", "pretokenizers")) {
    const std::string expression = ExpressionOf(*step, source);
    if (!expression.empty()) {
      expressions.push_back(expression);
    }
  }
  const std::optional<std::string> name = text::PreTokenizerNamed(expressions);
  if (!name) {
    std::string spelled;
    for (const std::string& expression : expressions) {
      spelled += (spelled.empty() ? "" : ", ") + QuoteForMessage(expression);
    }
    Refuse(source, fmt::format("pre_tokenizer: splits words by {} (want the way of GPT-2, SmolLM2, "
                               "Llama 3, Qwen2 or another that tandem knows)",
                               expressions.empty() ? "nothing" : spelled));
  }
  data.pre = *name;
}

void ReadSpaceMarks(const json& document, const std::string& source, VocabularyData& data) {
  data.model = "llama";
  data.space_prefix = SpacePrefix::kNone;
  bool marks_spaces = false;
  for (const json* step : Steps(document, "normalizer", "normalizers")) {
    const std::string type = Text(*step, "type");
    if (type == "Prepend" && Text(*step, "prepend") == kSpaceMark) {
      data.space_prefix = SpacePrefix::kEachPiece;
    } else if (type == "Replace" && Text(Member(*step, "pattern"), "String") == " " &&
               Text(*step, "content") == kSpaceMark) {
      marks_spaces = true;
    } else {
      Refuse(source, fmt::format("normalizer: {} (want Prepend and Replace of spaces by U+2581)",
                                 QuoteForMessage(type)));
    }
  }
  for (const json* step : Steps(document, "pre_tokenizer", "pretokenizers")) {
    const std::string type = Text(*step, "type");
    if (type != "Metaspace" || Text(*step, "replacement") != kSpaceMark ||
        Flag(*step, "split", true)) {
      Refuse(source, fmt::format("pre_tokenizer: {} (want none, or Metaspace that does not split)",
                                 QuoteForMessage(type)));
    }
    const std::string scheme = Text(*step, "prepend_scheme");
    if (scheme != "first" && scheme != "always" && scheme != "never") {
      Refuse(source, fmt::format("pre_tokenizer: Metaspace's prepend_scheme {} (want first, always "
                                 "or never)",
                                 QuoteForMessage(scheme)));
    }
    marks_spaces = true;
    if (scheme != "never") {
      data.space_prefix_where_missing = true;
      data.space_prefix = scheme == "first" ? SpacePrefix::kFirst : SpacePrefix::kEachPiece;
    }
  }
  if (!marks_spaces) {
    Refuse(source, "normalizer: spaces stay spaces (want them replaced by U+2581)");
  }
}

}  // namespace

void ReadTokenizerSteps(const json& document, const std::string& source, VocabularyData& data) {
  const json& model = Member(document, "model");
  const std::string type = model.contains("type") ? Text(model, "type") : "BPE";
  if (type != "BPE") {
    Refuse(source, fmt::format("model: {} (want BPE)", QuoteForMessage(type)));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!Text(model, key).empty()) {
      Refuse(source, fmt::format("model: {} is set (want none)", key));
    }
  }
  if (Flag(model, "byte_fallback", false)) {
    ReadSpaceMarks(document, source, data);
  } else {
    ReadByteLevel(document, source, data);
  }
}

bool StartsWithToken(const json& document, std::string_view token) {
  for (const json* step : Steps(document, "post_processor", "processors")) {
    const json& single = Member(*step, "single");
    if (Text(*step, "type") == "TemplateProcessing" && single.is_array() && !single.empty()) {
      return Text(Member(single[0], "SpecialToken"), "id") == token;
    }
  }
  return false;
}

}  // namespace tandem
