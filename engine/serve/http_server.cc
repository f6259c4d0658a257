// The HTTP library's side of http.h: cpp-httplib parses requests and frames responses; sockets,
// threads and limits are ours (connection.h, connection_pool.h), because its older versions bound
// none of them. Compiles with Debian's 0.11.4 and with current versions, which differ in the
// signatures named below.
//
// Routing is not the library's either: every request is sent to one handler, a POST after its body
// was read within the limits.

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <thread>

#include "engine/base/error.h"
#include "engine/serve/bind_error.h"
#include "engine/serve/connection.h"
#include "engine/serve/connection_pool.h"
#include "engine/serve/framing.h"
#include "engine/serve/http.h"

namespace tandem {
namespace {

constexpr int kBacklog = 512;
// Connections beyond the cap that still get an answer (health checks, 503), and those that wait.
constexpr size_t kSpareThreads = 16;
constexpr size_t kWaitingConnections = 256;
// Every request takes this path through the library's own router, whose regular expressions then
// never see text from outside.
constexpr char kInnerPath[] = "/r";

// "0.11.4" is older than 0.44.
bool LibraryIsOld() {
  int major = 0, minor = 0;
  const std::string version = CPPHTTPLIB_VERSION;
  size_t dot = version.find('.');
  const char* end = version.data() + version.size();
  std::from_chars(version.data(), end, major);
  if (dot != std::string::npos) std::from_chars(version.data() + dot + 1, end, minor);
  return major == 0 && minor < 44;
}

// One request on its way through the library: what the library's types have no room for.
struct Exchange {
  Connection* connection = nullptr;
  std::string path;
  bool over_capacity = false;
};

// The library calls handlers without a word of which connection they serve; it does so on the
// thread that called process_request.
Exchange*& CurrentExchange() {
  thread_local Exchange* exchange = nullptr;
  return exchange;
}

// The library's stream over our connection. Members of older and newer versions are all here, so
// some override nothing in one of them.
class LibraryStream final : public httplib::Stream {
 public:
  explicit LibraryStream(Connection& connection) : connection_(connection) {}

  bool is_readable() const { return connection_.WaitReadable(); }
  bool is_writable() const { return connection_.WaitWritable() && connection_.Connected(); }
  bool wait_readable() const { return connection_.WaitReadable(); }
  bool wait_writable() const { return connection_.WaitWritable(); }
  bool is_peer_alive() const { return connection_.Connected(); }
  ssize_t read(char* to, size_t size) { return connection_.Read(to, size); }
  ssize_t write(const char* from, size_t size) { return connection_.Write(from, size); }
  void get_remote_ip_and_port(std::string& ip, int& port) const {
    ip = connection_.remote_address();
    port = 0;
  }
  void get_local_ip_and_port(std::string& ip, int& port) const {
    ip.clear();
    port = 0;
  }
  socket_t socket() const { return connection_.fd(); }
  time_t duration() const { return 0; }

 private:
  Connection& connection_;
};

// enqueue() returns void in older versions of the library and bool in newer ones.
using EnqueueResult =
    decltype(std::declval<httplib::TaskQueue&>().enqueue(std::function<void()>()));

class LibraryQueue final : public httplib::TaskQueue {
 public:
  explicit LibraryQueue(std::shared_ptr<ConnectionPool> pool) : pool_(std::move(pool)) {}
  EnqueueResult enqueue(std::function<void()> job) override {
    pool_->Push(std::move(job));
    return static_cast<EnqueueResult>(true);
  }
  void shutdown() override { pool_->Join(); }

 private:
  std::shared_ptr<ConnectionPool> pool_;
};

class LibraryWriter final : public HttpWriter {
 public:
  LibraryWriter(httplib::DataSink& sink, Connection& connection)
      : sink_(sink), connection_(connection) {}
  bool Write(std::string_view bytes) override {
    // An empty chunk would end the response.
    if (ok_ && !bytes.empty()) ok_ = sink_.write(bytes.data(), bytes.size());
    return ok_;
  }
  bool Connected() override { return ok_ && connection_.Connected(); }
  bool ok() const { return ok_; }

 private:
  httplib::DataSink& sink_;
  Connection& connection_;
  bool ok_ = true;
};

Framing FramingOf(const httplib::Request& request) {
  Framing framing;
  auto [begin, end] = request.headers.equal_range("Content-Length");
  for (auto at = begin; at != end; ++at) framing.content_lengths.push_back(at->second);
  framing.transfer_encoding = request.has_header("Transfer-Encoding");
  framing.wants_body = request.method == "POST";
  framing.content_type = request.get_header_value("Content-Type");
  return framing;
}

void FillResponse(HttpResponse from, bool http_1_0, Connection* connection, httplib::Response& to) {
  to.status = from.status;
  for (auto& [name, value] : from.headers) to.set_header(name, value);
  if (!from.stream || connection == nullptr) {
    to.set_content(from.body, from.content_type);
    return;
  }
  auto provide = [stream = std::move(from.stream), connection](size_t, httplib::DataSink& sink) {
    LibraryWriter writer(sink, *connection);
    stream(writer);
    if (writer.ok()) sink.done();
    return writer.ok();
  };
  if (http_1_0) {
    to.set_content_provider(from.content_type, std::move(provide));
  } else {
    to.set_chunked_content_provider(from.content_type, std::move(provide));
  }
}

}  // namespace

// A server whose connections are ours: it overrides the one virtual function through which the
// library takes an accepted socket, as the library's own TLS server does.
struct HttpServer::State final : public httplib::Server {
  HttpServerOptions options;
  HttpHandler handler;
  ConnectionLimits limits;
  std::shared_ptr<ConnectionPool> pool;
  std::thread acceptor;
  int bound_port = 0;
  std::atomic<bool> stopping{false};
  std::atomic<bool> ended{false};  // the accept loop, by itself or stopped
  std::atomic<uint32_t> active{0};
  std::mutex mutex;
  std::set<Connection*> open;  // guarded by mutex

  State(HttpServerOptions o, HttpHandler h) : options(std::move(o)), handler(std::move(h)) {
    auto millis = [](double s) { return std::chrono::milliseconds(static_cast<int64_t>(s * 1e3)); };
    limits.read_timeout = millis(options.read_timeout_s);
    limits.write_timeout = millis(options.write_timeout_s);
    limits.max_body_bytes = options.max_body_bytes;
    pool = std::make_shared<ConnectionPool>(options.max_connections + kSpareThreads,
                                            kWaitingConnections);
    new_task_queue = [this] { return new LibraryQueue(pool); };
    set_payload_max_length(options.max_body_bytes);
    InstallHandlers();
  }

  HttpResponse ErrorResponse(int status) const {
    if (options.error_response) return options.error_response(status, TransportMessage(status));
    return HttpResponse{
        .status = status, .content_type = "text/plain", .body = TransportMessage(status)};
  }

  void Answer(const httplib::Request& request, std::string body, httplib::Response& response) {
    Exchange* exchange = CurrentExchange();
    Connection* connection = exchange->connection;
    HttpRequest in;
    in.method = request.method;
    in.path = exchange->path;
    for (const auto& [name, value] : request.headers)
      in.headers.emplace_back(LowerCase(name), value);
    in.body = std::move(body);
    in.remote = request.remote_addr;
    in.over_capacity = exchange->over_capacity;
    in.connected = [connection] { return connection->Connected(); };
    HttpResponse out;
    try {
      out = handler(in);
    } catch (const std::exception& e) {
      options.log->Write(LogLevel::kError, fmt::format("http: a handler threw: {}", e.what()));
      out = ErrorResponse(500);
    }
    FillResponse(std::move(out), request.version == "HTTP/1.0", connection, response);
  }

  // Reads the body within its limit, whatever its framing or coding says.
  void ReadAndAnswer(const httplib::Request& request, httplib::Response& response,
                     const httplib::ContentReader& reader) {
    std::string body;
    bool too_large = false;
    bool complete = reader([&](const char* data, size_t size) {
      too_large = body.size() + size > options.max_body_bytes;
      if (!too_large) body.append(data, size);
      return !too_large;
    });
    const Connection& connection = *CurrentExchange()->connection;
    if (complete && !too_large) {
      Answer(request, std::move(body), response);
      return;
    }
    int status = 400;
    if (too_large || connection.too_large() || response.status == 413) {
      status = 413;
    } else if (connection.timed_out()) {
      status = 408;
    }
    FillResponse(ErrorResponse(status), false, nullptr, response);
  }

  void InstallHandlers() {
    auto refuse = [this](int status, httplib::Response& response) {
      FillResponse(ErrorResponse(status), false, nullptr, response);
    };
    set_pre_routing_handler(
        [this, refuse](const httplib::Request& request, httplib::Response& response) {
          if (int status = FramingStatus(FramingOf(request), options.max_body_bytes); status != 0) {
            refuse(status, response);
          } else if (request.method == "POST") {
            return HandlerResponse::Unhandled;
          } else {
            Answer(request, "", response);
          }
          return HandlerResponse::Handled;
        });
    set_expect_100_continue_handler(
        [this](const httplib::Request& request, httplib::Response& response) {
          int status = FramingStatus(FramingOf(request), options.max_body_bytes);
          if (status == 0) return 100;
          response.status = status;
          return status;
        });
    Post(kInnerPath, [this](const httplib::Request& request, httplib::Response& response,
                            const httplib::ContentReader& reader) {
      ReadAndAnswer(request, response, reader);
    });
    // The setter is overloaded on what the handler returns, which a lambda leaves open.
    HandlerWithResponse on_error = [this](const httplib::Request&, httplib::Response& response) {
      if (!response.body.empty()) return HandlerResponse::Unhandled;
      const Exchange* exchange = CurrentExchange();
      int status = response.status;
      if (exchange != nullptr && exchange->connection->too_large()) status = 431;
      if (exchange != nullptr && exchange->connection->timed_out()) status = 408;
      FillResponse(ErrorResponse(status), false, nullptr, response);
      return HandlerResponse::Handled;
    };
    set_error_handler(std::move(on_error));
  }

  bool process_and_close_socket(socket_t fd) override {
    uint32_t now = active.fetch_add(1) + 1;
    bool over = now > options.max_connections;
    ConnectionLimits mine = limits;
    if (over) mine.read_timeout = std::min(mine.read_timeout, std::chrono::milliseconds(2000));
    {
      Connection connection(fd, mine);
      {
        std::lock_guard lock(mutex);
        open.insert(&connection);
      }
      if (!stopping) Serve(connection, over);
      std::lock_guard lock(mutex);
      open.erase(&connection);
    }
    active.fetch_sub(1);
    return true;
  }

  void Serve(Connection& connection, bool over) {
    Exchange exchange{&connection, "", over};
    CurrentExchange() = &exchange;
    LibraryStream stream(connection);
    bool closed = false;
    // No ranges, no compression: both would apply to streams as well.
    auto setup = [&](httplib::Request& request) {
      exchange.path = std::move(request.path);
      request.path = kInnerPath;
      request.ranges.clear();
      for (const char* name : {"Range", "Accept-Encoding"}) request.headers.erase(name);
      connection.BeginBody();
    };
    Process(*this, stream, connection, closed, setup);
    if (!connection.wrote() && (connection.too_large() || connection.timed_out())) {
      WriteRaw(connection, connection.too_large() ? 431 : 408);
    }
    CurrentExchange() = nullptr;
  }

  // process_request takes the addresses as well in newer versions of the library.
  template <class Self, class Setup>
  static void Process(Self& self, LibraryStream& stream, const Connection& connection, bool& closed,
                      const Setup& setup) {
    if constexpr (requires { self.process_request(stream, true, closed, setup); }) {
      self.process_request(stream, true, closed, setup);
    } else {
      self.process_request(stream, connection.remote_address(), 0, "", 0, true, closed, setup);
    }
  }

  // Bound, but never started: the library closes only what it accepts from.
  void CloseListener() {
    if (bound_port != 0 && svr_sock_ != INVALID_SOCKET) ::close(svr_sock_.exchange(INVALID_SOCKET));
  }

  // For a request so broken that the library gives it no answer.
  void WriteRaw(Connection& connection, int status) {
    HttpResponse response = ErrorResponse(status);
    std::string text = fmt::format(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
        status, status == 431 ? "Request Header Fields Too Large" : "Request Timeout",
        response.content_type, response.body.size(), response.body);
    connection.Write(text.data(), text.size());
  }
};

HttpServer::HttpServer(HttpServerOptions options, HttpHandler handler)
    : state_(std::make_unique<State>(std::move(options), std::move(handler))) {}

HttpServer::~HttpServer() { Stop(); }

void HttpServer::Bind() {
  State& s = *state_;
  // "localhost" may mean two addresses, of which one could be another server's.
  std::string host = s.options.host == "localhost" ? "127.0.0.1" : s.options.host;
  if (host == "[::1]") host = "::1";
  CheckHost(host);
  if (!IsLoopbackHost(s.options.host) && LibraryIsOld() && !s.options.allow_insecure_bind) {
    Fail(
        ErrorCode::kInvalidArgument,
        fmt::format("serve: refusing to listen on '{}': others could reach it, and this build uses "
                    "cpp-httplib {}, whose parser has known security holes; use 127.0.0.1 behind "
                    "a proxy such as nginx, build with cpp-httplib 0.44 or later, or allow it "
                    "with --allow-insecure-bind",
                    s.options.host, CPPHTTPLIB_VERSION));
  }
  if (s.options.port < 0 || s.options.port > 65535) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("serve: port {} (want 0 to 65535)", s.options.port));
  }
  // The library would share the port with any other process that does the same.
  int listener = -1;
  s.set_socket_options([&listener](socket_t fd) {
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    listener = fd;
  });
  int port = s.options.port;
  if (port == 0) {
    port = s.bind_to_any_port(host);
  } else if (!s.bind_to_port(host, port)) {
    port = -1;
  }
  if (port < 0) FailBind(host, s.options.port);
  ::listen(listener, kBacklog);  // the library's own backlog is as short as 5
  s.set_socket_options([](socket_t) {});
  s.bound_port = port;
}

int HttpServer::port() const { return state_->bound_port; }

void HttpServer::Start() {
  State& s = *state_;
  s.acceptor = std::thread([&s] {
    s.listen_after_bind();
    s.ended = true;
  });
  // stop() does nothing before the accept loop runs.
  while (!s.is_running() && !s.ended) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (!s.ended) return;
  s.acceptor.join();
  Fail(ErrorCode::kIo, "serve: could not accept connections; too many open files?");
}

void HttpServer::Stop() {
  State& s = *state_;
  if (!s.acceptor.joinable()) {
    s.CloseListener();
    return;
  }
  s.stopping = true;
  s.pool->Close();
  s.stop();
  {
    std::lock_guard lock(s.mutex);
    for (Connection* connection : s.open) connection->Interrupt();
  }
  s.acceptor.join();
}

uint32_t HttpServer::connections() const { return state_->active.load(); }

}  // namespace tandem
