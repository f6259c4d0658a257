// POST /v1/completions: raw text or token ids, continued.
#include "engine/serve/handlers.h"
#include "engine/serve/json_input.h"
#include "engine/serve/openai_request.h"
#include "engine/serve/respond.h"

namespace tandem {

HttpResponse HandleCompletion(ServeContext& context, const HttpRequest& request) {
  RequestBounds bounds{context.model.config().vocab, context.options.sampling_defaults};
  return Respond(context, ParseCompletionRequest(ParseJsonBody(request.body), bounds), request);
}

}  // namespace tandem
