// The server's operations, one function each: a request in, a response out. What is wrong with a
// request is thrown as ApiError or Error; the router turns it into an answer.
#pragma once

#include "engine/serve/context.h"
#include "engine/serve/http.h"

namespace tandem {

HttpResponse HandleCompletion(ServeContext& context, const HttpRequest& request);
HttpResponse HandleChat(ServeContext& context, const HttpRequest& request);
HttpResponse HandleTokenize(ServeContext& context, const HttpRequest& request);
HttpResponse HandleDetokenize(ServeContext& context, const HttpRequest& request);
HttpResponse HandleApplyTemplate(ServeContext& context, const HttpRequest& request);
HttpResponse HandleModels(ServeContext& context, const HttpRequest& request);
HttpResponse HandleProps(ServeContext& context, const HttpRequest& request);
HttpResponse HandleHealth(ServeContext& context, const HttpRequest& request);
HttpResponse HandlePage(ServeContext& context, const HttpRequest& request);
HttpResponse HandleOpenApi(ServeContext& context, const HttpRequest& request);

}  // namespace tandem
