// tandem tokenize: what a model's tokenizer makes of text, and of ids. Reads the vocabulary alone.
#include <fmt/core.h>

#include <iostream>
#include <iterator>
#include <memory>

#include "engine/base/error.h"
#include "engine/model/load_model.h"
#include "tools/tandem/commands.h"
#include "tools/tandem/console.h"
#include "tools/tandem/engine_flags.h"
#include "tools/tandem/exit_code.h"
#include "tools/tandem/install.h"

namespace tandem {
namespace {

using nlohmann::json;

struct TokenizeFlags {
  std::string model = EngineFlags().model;
  std::string text;
  std::vector<int32_t> decode;
  bool no_bos = false;
  bool no_parse_special = false;
  bool ids_only = false;
  bool batch = false;
  bool json = false;
};

std::string ReadStdin() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

// As JSON prints a string; bytes that are part of a code point come out as U+FFFD.
json Printable(const std::string& bytes) {
  return json::parse(json(bytes).dump(-1, ' ', false, json::error_handler_t::replace));
}

std::vector<int32_t> Encode(const Tokenizer& tokenizer, const TokenizeFlags& flags,
                            const std::string& text) {
  return tokenizer.Encode(text, {.parse_special = !flags.no_parse_special,
                                 .add_bos = !flags.no_bos && tokenizer.adds_bos()});
}

// A JSON array of texts in, an array of arrays of ids out: for scripts with many texts.
int Batch(const Tokenizer& tokenizer, const TokenizeFlags& flags) {
  json answer = json::array();
  try {
    for (const json& text : json::parse(ReadStdin())) {
      answer.push_back(Encode(tokenizer, flags, text.get<std::string>()));
    }
  } catch (const json::exception& error) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("tokenize: --batch wants a JSON array of strings on standard input: {}",
                     error.what()));
  }
  PrintLine(answer.dump());
  return kExitOk;
}

int Decode(const Tokenizer& tokenizer, const TokenizeFlags& flags) {
  Detokenizer out(tokenizer, TextStart::kBegins);
  std::string text;
  for (int32_t id : flags.decode) {
    if (id < 0 || static_cast<uint32_t>(id) >= tokenizer.vocab_size()) {
      Fail(ErrorCode::kInvalidArgument,
           fmt::format("tokenize: id {} (the vocabulary has {} tokens)", id,
                       tokenizer.vocab_size()));
    }
    text += out.Add(id);
  }
  text += out.Finish();
  if (flags.json) {
    PrintJson({{"ids", flags.decode}, {"text", text}});
  } else {
    PrintLine(text);
  }
  return kExitOk;
}

int Show(const Tokenizer& tokenizer, const TokenizeFlags& flags) {
  const std::vector<int32_t> ids =
      Encode(tokenizer, flags, flags.text == "-" ? ReadStdin() : flags.text);
  if (flags.json) {
    json pieces = json::array();
    for (int32_t id : ids) pieces.push_back(Printable(tokenizer.TokenBytes(id, true)));
    PrintJson({{"ids", ids}, {"pieces", std::move(pieces)}});
  } else if (flags.ids_only) {
    PrintLine(json(ids).dump());
  } else {
    for (int32_t id : ids) {
      PrintLine(fmt::format("{:>7}  {}", id, Printable(tokenizer.TokenBytes(id, true)).dump()));
    }
  }
  return kExitOk;
}

int Tokenize(const TokenizeFlags& flags) {
  const StoredVocabulary stored = LoadModelVocabulary(ModelPath(flags.model));
  if (stored.tokenizer == nullptr) {
    Fail(ErrorCode::kModelFile, fmt::format("tokenize: {} has no vocabulary", flags.model));
  }
  if (flags.batch) return Batch(*stored.tokenizer, flags);
  if (!flags.decode.empty()) return Decode(*stored.tokenizer, flags);
  return Show(*stored.tokenizer, flags);
}

}  // namespace

void AddTokenizeCommand(CLI::App& root, Action& action) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* app = root.add_subcommand("tokenize", "Text as a model's tokens, and tokens as text");
  app->footer(
      "Examples:\n"
      "  tandem tokenize \"Two cards and a bridge\"\n"
      "  tandem tokenize -m model.gguf --ids - < prompt.txt\n"
      "  tandem tokenize --decode 504,2905,355\n"
      "  echo '[\"one text\", \"another\"]' | tandem tokenize --batch");
  app->add_option("-m,--model", flags->model,
                  "A name, a GGUF file or a safetensors folder; only its vocabulary is read, a "
                  "file without weights will "
                  "do")
      ->capture_default_str();
  app->add_option("text,-p,--prompt", flags->text, "The text; '-' reads standard input");
  app->add_option("--decode", flags->decode, "Ids to turn into text")->delimiter(',');
  app->add_flag("--no-bos", flags->no_bos,
                "Leave out the BOS token that the model would put first");
  app->add_flag("--no-parse-special", flags->no_parse_special,
                "Read \"<|im_start|>\" and its kind as plain text");
  app->add_flag("--ids", flags->ids_only, "Print the ids alone, as one JSON array");
  app->add_flag("--batch", flags->batch,
                "Read a JSON array of texts from standard input, print an array of arrays of ids");
  app->add_flag("--json", flags->json, "One JSON object on stdout");
  app->callback([flags, app, &action] {
    const bool has_text = app->count("text") + app->count("--prompt") > 0;
    if (!has_text && flags->decode.empty() && !flags->batch) {
      throw CLI::RequiredError("a text, --decode or --batch");
    }
    action = [flags] { return Tokenize(*flags); };
  });
}

}  // namespace tandem
