#include "engine/serve/prompt.h"

#include <fmt/format.h>

#include <ctime>

#include "engine/serve/api_error.h"

namespace tandem {
namespace {

std::string SpecialText(const Tokenizer& tokenizer, std::optional<int32_t> id) {
  return id ? tokenizer.TokenBytes(*id, true) : "";
}

std::tm LocalTime() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return local;
}

[[noreturn]] void FailTooLong(const ServeContext& context, const std::string& param,
                              const std::string& got) {
  FailRequest(param,
              fmt::format("{} is {} long, and a sequence may have {} tokens here, its answer "
                          "included; shorten it, or serve with a larger context",
                          param, got, context.slot_context),
              "context_length_exceeded");
}

// There must be a prompt, and room for at least one token of an answer when one is wanted.
void CheckFits(const ServeContext& context, const GenerateRequest& request,
               const std::vector<int32_t>& ids, const std::string& param) {
  if (ids.empty()) FailRequest(param, fmt::format("{}: empty (want at least one token)", param));
  size_t answer = request.max_tokens.value_or(1) > 0 ? 1 : 0;
  if (ids.size() + answer > context.slot_context) {
    FailTooLong(context, param, fmt::format("{} tokens", ids.size()));
  }
}

std::string DecodeAll(const Tokenizer* tokenizer, const std::vector<int32_t>& ids) {
  if (tokenizer == nullptr) return "";
  Detokenizer out(*tokenizer, TextStart::kBegins);
  std::string text;
  for (int32_t id : ids) text += out.Add(id);
  return text + out.Finish();
}

EncodedPrompt EncodeOne(const ServeContext& context, const GenerateRequest& request,
                        const PromptInput& input) {
  EncodedPrompt prompt;
  if (const auto* text = std::get_if<std::string>(&input)) {
    prompt.text = *text;
    prompt.ids = EncodeText(context, *text, "prompt");
  } else {
    prompt.ids = std::get<std::vector<int32_t>>(input);
    if (request.echo) prompt.text = DecodeAll(context.tokenizer, prompt.ids);
  }
  CheckFits(context, request, prompt.ids, "prompt");
  return prompt;
}

}  // namespace

std::vector<int32_t> EncodeText(const ServeContext& context, const std::string& text,
                                const std::string& param) {
  const Tokenizer& tokenizer = context.TokenizerOrFail();
  // However well it tokenises, a text of so many bytes cannot fit: not worth tokenising.
  if (text.size() > uint64_t{context.slot_context} * context.longest_token) {
    FailTooLong(context, param, fmt::format("{} bytes", text.size()));
  }
  std::string bos = SpecialText(tokenizer, tokenizer.bos());
  bool add_bos = tokenizer.adds_bos() && (bos.empty() || text.rfind(bos, 0) != 0);
  return tokenizer.Encode(text, {.parse_special = true, .add_bos = add_bos});
}

std::string RenderChat(const ServeContext& context, const std::vector<ChatMessage>& messages) {
  const ChatTemplate& chat_template = context.ChatTemplateOrFail();
  const Tokenizer& tokenizer = context.TokenizerOrFail();
  ChatTemplateOptions options{.bos = SpecialText(tokenizer, tokenizer.bos()),
                              .eos = SpecialText(tokenizer, tokenizer.eos()),
                              .now = LocalTime()};
  try {
    return chat_template.Render(messages, options);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kInvalidArgument) throw;
    FailRequest("messages",
                fmt::format("the model's chat template refuses them: {}", error.what()));
  }
}

std::vector<EncodedPrompt> EncodePrompts(const ServeContext& context,
                                         const GenerateRequest& request) {
  std::vector<EncodedPrompt> prompts;
  if (request.api == Api::kChat) {
    std::string text = RenderChat(context, request.messages);
    std::vector<int32_t> ids = EncodeText(context, text, "messages");
    CheckFits(context, request, ids, "messages");
    prompts.push_back({std::move(text), std::move(ids)});
    return prompts;
  }
  for (const PromptInput& input : request.prompts) {
    prompts.push_back(EncodeOne(context, request, input));
  }
  return prompts;
}

}  // namespace tandem
