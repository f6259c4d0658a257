// Runs a parsed request and answers it, whole or as a stream; shared by the completion and chat
// handlers.
#pragma once

#include "engine/serve/context.h"
#include "engine/serve/http.h"
#include "engine/serve/openai_request.h"

namespace tandem {

// Throws ApiError or Error for what is wrong before the first token: a prompt that does not fit, a
// full queue. A whole answer blocks here until it is complete; a stream is submitted here and
// written later.
HttpResponse Respond(ServeContext& context, const GenerateRequest& request,
                     const HttpRequest& http);

}  // namespace tandem
