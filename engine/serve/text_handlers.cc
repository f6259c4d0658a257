// POST /tokenize, /detokenize and /apply-template: what the model makes of text, without running
// it.
#include "engine/serve/api_error.h"
#include "engine/serve/handlers.h"
#include "engine/serve/json_input.h"
#include "engine/serve/openai_request.h"
#include "engine/serve/prompt.h"

namespace tandem {
namespace {

using nlohmann::json;

// A token as text, or as its bytes when it is part of a code point.
json PieceOf(const Tokenizer& tokenizer, int32_t id) {
  std::string bytes = tokenizer.TokenBytes(id, true);
  try {
    json(bytes).dump();
    return bytes;
  } catch (const json::exception&) {
    json array = json::array();
    for (unsigned char c : bytes) array.push_back(c);
    return array;
  }
}

}  // namespace

HttpResponse HandleTokenize(ServeContext& context, const HttpRequest& request) {
  json body = ParseJsonBody(request.body);
  Fields fields(body);
  auto text = fields.String("content");
  if (!text) text = fields.String("prompt");
  if (!text) FailRequest("content", "content is missing", "missing_required_parameter");
  bool with_pieces = fields.Bool("with_pieces").value_or(false);
  const Tokenizer& tokenizer = context.TokenizerOrFail();
  EncodeOptions options{
      .parse_special = fields.Bool("parse_special").value_or(true),
      .add_bos = fields.Bool("add_special").value_or(false) && tokenizer.adds_bos()};
  json tokens = json::array();
  for (int32_t id : tokenizer.Encode(*text, options)) {
    if (with_pieces) {
      tokens.push_back({{"id", id}, {"piece", PieceOf(tokenizer, id)}});
    } else {
      tokens.push_back(id);
    }
  }
  return {.body = Dump({{"tokens", std::move(tokens)}})};
}

HttpResponse HandleDetokenize(ServeContext& context, const HttpRequest& request) {
  json body = ParseJsonBody(request.body);
  const json* tokens = Fields(body).Find("tokens");
  if (tokens == nullptr) {
    FailRequest("tokens", "tokens is missing", "missing_required_parameter");
  }
  const Tokenizer& tokenizer = context.TokenizerOrFail();
  std::string text;
  for (int32_t id : ParseTokenIds(*tokens, "tokens", tokenizer.vocab_size())) {
    text += tokenizer.TokenBytes(id, true);
  }
  // As a text of its own, so that what was tokenized comes back.
  if (tokenizer.adds_leading_space() && text.starts_with(' ')) text.erase(0, 1);
  return {.body = Dump({{"content", text}})};
}

HttpResponse HandleApplyTemplate(ServeContext& context, const HttpRequest& request) {
  json body = ParseJsonBody(request.body);
  return {.body = Dump({{"prompt", RenderChat(context, ParseMessages(body))}})};
}

}  // namespace tandem
