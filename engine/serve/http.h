// HTTP as the rest of this room sees it: a request in, a response out, nothing of any library.
// http_server.cc is the one file that knows the library behind it.
//
// A handler runs on a connection's own thread and may block. A response is a body, or a `stream`
// function that writes while it runs; either way the connection closes afterwards.
//
//   HttpServer server(options, [](const HttpRequest& r) { return HttpResponse{.body = "{}"}; });
//   server.Bind();  server.Start();  ...  server.Stop();
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/base/log.h"

namespace tandem {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;          // "GET", "POST", ...
  std::string path;            // decoded, without the query
  HttpHeaders headers;         // names in lower case
  std::string body;            // POST only
  std::string remote;          // the peer's address, for messages
  bool over_capacity = false;  // more connections are open than allowed: answer briefly
  // Whether the client is still there. A client that closed its sending half counts as gone.
  std::function<bool()> connected = [] { return true; };

  // The first header of that lower-case name; null when absent.
  const std::string* Header(std::string_view name) const;
};

// What a streaming response writes to.
class HttpWriter {
 public:
  virtual ~HttpWriter() = default;
  // False when the client is gone or does not read; then nothing more can be written.
  virtual bool Write(std::string_view bytes) = 0;
  virtual bool Connected() = 0;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HttpHeaders headers;
  std::string body;
  std::function<void(HttpWriter&)> stream;  // used instead of `body` when set
};

using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080;                 // 0 picks a free one
  uint32_t max_connections = 512;  // beyond them requests carry over_capacity
  double read_timeout_s = 10;      // for all headers, and for each pause within a body
  double write_timeout_s = 30;     // a client that reads nothing for so long is gone
  size_t max_body_bytes = size_t{8} << 20;
  bool allow_insecure_bind = false;  // see HttpServer::Bind
  // What a request that never reached the handler gets (400, 408, 413, 414, 431, ...).
  std::function<HttpResponse(int status, const std::string& message)> error_response;
  LogSink* log = &NullLog();
};

class HttpServer {
 public:
  HttpServer(HttpServerOptions options, HttpHandler handler);
  ~HttpServer();  // stops

  // Takes the address for this process alone. Throws Error(kPortInUse) when it is taken,
  // Error(kInvalidArgument) for a host that is no address of this machine, or one that others can
  // reach while the HTTP library is older than 0.44 (its parser has known holes) unless
  // allow_insecure_bind is set.
  void Bind();
  int port() const;
  void Start();  // accepts on a thread of its own
  // Accepts no more, closes connections that wait for a request, returns when all handlers are
  // back.
  void Stop();
  uint32_t connections() const;  // open now

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Whether this host names the machine itself only.
bool IsLoopbackHost(std::string_view host);

}  // namespace tandem
