// POST /v1/chat/completions: messages, through the model's own chat template.
#include "engine/serve/handlers.h"
#include "engine/serve/json_input.h"
#include "engine/serve/openai_request.h"
#include "engine/serve/respond.h"

namespace tandem {

HttpResponse HandleChat(ServeContext& context, const HttpRequest& request) {
  RequestBounds bounds{context.model.config().vocab, context.options.sampling_defaults};
  return Respond(context, ParseChatRequest(ParseJsonBody(request.body), bounds), request);
}

}  // namespace tandem
