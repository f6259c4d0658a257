// From a parsed request to token ids, within the context.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/serve/context.h"
#include "engine/serve/openai_request.h"

namespace tandem {

// One prompt, ready to run. `text` is what an echo shows.
struct EncodedPrompt {
  std::string text;
  std::vector<int32_t> ids;
};

// One entry a prompt, or the one that the chat template makes of the messages. Throws ApiError: 400
// for a prompt that is empty or longer than the context, 501 when the model lacks what it takes.
std::vector<EncodedPrompt> EncodePrompts(const ServeContext& context,
                                         const GenerateRequest& request);
// The chat template's rendering of the messages.
std::string RenderChat(const ServeContext& context, const std::vector<ChatMessage>& messages);
// Special tokens in the text are parsed; BOS goes first when the model wants one and the text does
// not begin with it.
std::vector<int32_t> EncodeText(const ServeContext& context, const std::string& text,
                                const std::string& param);

}  // namespace tandem
