// The HTTP server: the OpenAI protocol, metrics and a live page over one Engine.
//
// Runs the engine on a thread of its own, and each connection on one; Start, Wait and the
// destructor belong to one thread, RequestShutdown to any, a signal handler included.
//
//   Server server(*engine, {.port = 8080});
//   server.Start();                        // answers from here on
//   ... on SIGTERM: server.RequestShutdown();
//   server.Wait();                         // returns when everything in flight has ended
#pragma once

#include <memory>

#include "engine/run/engine.h"
#include "engine/serve/server_options.h"

namespace tandem {

class Server {
 public:
  // `engine` outlives the server, and is stepped by it alone.
  Server(Engine& engine, ServerOptions options);
  ~Server();  // shuts down at once when Wait() did not return before

  // Binds and serves. Throws Error(kPortInUse) with what to do, Error(kInvalidArgument) for a bad
  // address.
  void Start();
  int port() const;  // the real one, after Start()

  // Async-signal-safe. First call: /health says 503, new work is refused with 503, what is in
  // flight may finish within shutdown_timeout_s, then ends with an error frame. Second call: ends
  // at once.
  void RequestShutdown();
  // Returns once the server has shut down.
  void Wait();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem
