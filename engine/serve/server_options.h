// How a server is set up.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "engine/base/log.h"
#include "engine/run/engine.h"

namespace tandem {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080;                    // 0 picks a free one
  std::string model_alias;            // the model's name in answers; empty: from its file
  std::vector<std::string> api_keys;  // any of them opens the door; none: no door
  // Web pages of these origins may call the server, comma-separated; "*": of any. Empty: only its
  // own page.
  std::string cors_origins;
  int max_connections = 512;
  double read_timeout_s = 10;      // for a request to arrive
  double write_timeout_s = 30;     // for a client to read on
  double shutdown_timeout_s = 30;  // what is in flight may finish within; 0: ends at once
  double ping_interval_s = 15;     // a silent stream says that it lives
  size_t max_body_bytes = size_t{8} << 20;
  // Errors say "x-should-retry: false", so that client libraries do not hide overload by retrying.
  bool retry_header = false;
  // Listen beyond this machine although the HTTP library is known to be unsafe.
  bool allow_insecure_bind = false;
  SamplingParams sampling_defaults{.temperature = 1.0};  // for fields a request leaves out
  LogSink* log = &NullLog();
};

}  // namespace tandem
