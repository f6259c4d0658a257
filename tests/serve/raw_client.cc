#include "tests/serve/raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

namespace tandem::testing {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

RawConnection::RawConnection(int port) {
  fd_ = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) Close();
}

RawConnection::~RawConnection() { Close(); }

void RawConnection::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

bool RawConnection::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    pollfd entry{fd_, POLLOUT, 0};
    if (poll(&entry, 1, 10000) <= 0) return false;
    ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

void RawConnection::ShutdownWrite() { shutdown(fd_, SHUT_WR); }

bool RawConnection::ReadSome(milliseconds timeout) {
  pollfd entry{fd_, POLLIN, 0};
  if (poll(&entry, 1, static_cast<int>(std::max<int64_t>(0, timeout.count()))) <= 0) {
    timed_out_ = true;
    return false;
  }
  std::array<char, 16384> buffer;
  ssize_t n = recv(fd_, buffer.data(), buffer.size(), 0);
  if (n <= 0) return false;
  received_.append(buffer.data(), static_cast<size_t>(n));
  return true;
}

std::string RawConnection::ReadAll(milliseconds timeout) {
  auto until = steady_clock::now() + timeout;
  while (ReadSome(std::chrono::duration_cast<milliseconds>(until - steady_clock::now()))) {
  }
  return received_;
}

std::string RawConnection::ReadUntil(std::string_view text, milliseconds timeout) {
  auto until = steady_clock::now() + timeout;
  while (received_.find(text) == std::string::npos) {
    if (!ReadSome(std::chrono::duration_cast<milliseconds>(until - steady_clock::now()))) return "";
  }
  return received_;
}

namespace {

std::string Unchunk(const std::string& text, bool* complete) {
  std::string body;
  size_t at = 0;
  while (true) {
    size_t end = text.find("\r\n", at);
    if (end == std::string::npos) return body;
    size_t size = std::strtoul(text.substr(at, end - at).c_str(), nullptr, 16);
    if (size == 0) {
      *complete = true;
      return body;
    }
    if (end + 2 + size > text.size()) return body + text.substr(end + 2);
    body += text.substr(end + 2, size);
    at = end + 2 + size + 2;
  }
}

}  // namespace

RawResponse ParseResponse(const std::string& text) {
  RawResponse response;
  size_t head_end = text.find("\r\n\r\n");
  if (text.rfind("HTTP/1.1 ", 0) != 0 || head_end == std::string::npos) return response;
  response.status = std::atoi(text.c_str() + 9);
  size_t at = text.find("\r\n") + 2;
  while (at < head_end) {
    size_t end = text.find("\r\n", at);
    size_t colon = text.find(':', at);
    std::string name = text.substr(at, colon - at);
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    response.headers[name] = text.substr(colon + 2, end - colon - 2);
    at = end + 2;
  }
  std::string rest = text.substr(head_end + 4);
  auto header = [&](const char* name) {
    auto at = response.headers.find(name);
    return at == response.headers.end() ? std::string() : at->second;
  };
  if (header("transfer-encoding") == "chunked") {
    response.body = Unchunk(rest, &response.complete);
  } else {
    response.complete = header("content-length") == std::to_string(rest.size());
    response.body = std::move(rest);
  }
  return response;
}

std::string RequestText(const std::string& method, const std::string& path, const std::string& body,
                        const std::string& extra_headers) {
  std::string text = method + " " + path + " HTTP/1.1\r\nHost: 127.0.0.1\r\n" + extra_headers;
  if (method == "POST") text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  return text + "\r\n" + body;
}

RawResponse Send(int port, const std::string& method, const std::string& path,
                 const std::string& body, const std::string& extra_headers) {
  RawConnection connection(port);
  connection.Send(RequestText(method, path, body, extra_headers));
  return ParseResponse(connection.ReadAll());
}

std::vector<std::string> Events(const std::string& body) {
  std::vector<std::string> events;
  size_t at = 0;
  while (true) {
    size_t end = body.find("\n\n", at);
    if (end == std::string::npos) return events;
    std::string event = body.substr(at, end - at);
    if (event.rfind("data: ", 0) == 0) events.push_back(event.substr(6));
    at = end + 2;
  }
}

}  // namespace tandem::testing
