#include "engine/serve/server.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "engine/base/check.h"
#include "engine/serve/context.h"
#include "engine/serve/http.h"
#include "engine/serve/router.h"

namespace tandem {

struct Server::State {
  State(Engine& engine, ServerOptions options)
      : context(engine, std::move(options)),
        router(context, [this] { return http.connections(); }),
        http(HttpOptions(), [this](const HttpRequest& request) { return router.Handle(request); }) {
  }

  HttpServerOptions HttpOptions() {
    const ServerOptions& o = context.options;
    return {.host = o.host,
            .port = o.port,
            .max_connections = static_cast<uint32_t>(std::max(1, o.max_connections)),
            .read_timeout_s = o.read_timeout_s,
            .write_timeout_s = o.write_timeout_s,
            .max_body_bytes = o.max_body_bytes,
            .allow_insecure_bind = o.allow_insecure_bind,
            .error_response = [this](int status,
                                     const std::string& m) { return router.Transport(status, m); },
            .log = o.log};
  }

  // Runs on its own thread from Start() to the end.
  void Attend() {
    auto timeout = std::chrono::duration<double>(context.options.shutdown_timeout_s);
    context.lifecycle.WaitForEnd(std::chrono::duration_cast<std::chrono::milliseconds>(timeout));
    http.Stop();
  }

  ServeContext context;
  Router router;
  HttpServer http;
  std::thread attendant;
};

Server::Server(Engine& engine, ServerOptions options)
    : state_(std::make_unique<State>(engine, std::move(options))) {}

Server::~Server() {
  RequestShutdown();
  RequestShutdown();
  Wait();
}

void Server::Start() {
  State& s = *state_;
  Check(!s.attendant.joinable(), "serve: a server starts once");
  s.http.Bind();
  s.http.Start();
  s.attendant = std::thread([&s] { s.Attend(); });
  s.context.options.log->Write(LogLevel::kInfo,
                               fmt::format("serve: {} on http://{}:{}/", s.context.model_id,
                                           s.context.options.host, s.http.port()));
}

int Server::port() const { return state_->http.port(); }

void Server::RequestShutdown() { state_->context.lifecycle.RequestShutdown(); }

void Server::Wait() {
  if (state_->attendant.joinable()) state_->attendant.join();
}

}  // namespace tandem
