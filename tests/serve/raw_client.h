// A client made of a socket: it sends exactly the bytes a test wants and reads what comes.
// Every wait is bounded, so that a server that hangs fails a test instead of stopping it.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::testing {

class RawConnection {
 public:
  explicit RawConnection(int port);
  ~RawConnection();
  RawConnection(const RawConnection&) = delete;
  RawConnection& operator=(const RawConnection&) = delete;

  bool connected() const { return fd_ >= 0; }
  // False once the peer takes no more.
  bool Send(std::string_view bytes);
  void ShutdownWrite();
  void Close();
  // Reads until the peer closes or the time is over.
  std::string ReadAll(std::chrono::milliseconds timeout = std::chrono::seconds(20));
  // Reads until `text` is in what came so far, which is returned; "" when it did not come in time.
  std::string ReadUntil(std::string_view text,
                        std::chrono::milliseconds timeout = std::chrono::seconds(10));
  bool timed_out() const { return timed_out_; }

 private:
  bool ReadSome(std::chrono::milliseconds timeout);

  int fd_ = -1;
  std::string received_;
  bool timed_out_ = false;
};

struct RawResponse {
  int status = 0;                              // 0: none came
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
  bool complete = false;                       // as long as its framing says
};

RawResponse ParseResponse(const std::string& text);
RawResponse Send(int port, const std::string& method, const std::string& path,
                 const std::string& body = "", const std::string& extra_headers = "");
// Request text with a Content-Length.
std::string RequestText(const std::string& method, const std::string& path, const std::string& body,
                        const std::string& extra_headers = "");
// The payloads of a stream's "data:" events.
std::vector<std::string> Events(const std::string& body);

}  // namespace tandem::testing
