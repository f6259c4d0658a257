#include "engine/serve/bind_error.h"

#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "engine/base/error.h"

namespace tandem {
namespace {

// errno of the first address of the list that cannot be listened on; 0 when all can.
int ListenErrno(const addrinfo* found) {
  int reason = 0;
  for (const addrinfo* at = found; at != nullptr && reason == 0; at = at->ai_next) {
    int fd = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
    if (fd < 0) continue;
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, at->ai_addr, at->ai_addrlen) != 0 || listen(fd, 1) != 0) reason = errno;
    close(fd);
  }
  return reason;
}

// For freeaddrinfo().
addrinfo* AddressesOf(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("serve: host '{}': {}; give an address of this machine, such as 127.0.0.1",
                     host, gai_strerror(error)));
  }
  return found;
}

}  // namespace

void CheckHost(const std::string& host) { freeaddrinfo(AddressesOf(host, 0)); }

void FailBind(const std::string& host, int port) {
  addrinfo* found = AddressesOf(host, port);
  int reason = ListenErrno(found);
  freeaddrinfo(found);
  if (reason == EADDRNOTAVAIL || reason == EAFNOSUPPORT) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("serve: host '{}' is no address of this machine; use 127.0.0.1", host));
  }
  if (reason == EACCES) {
    Fail(ErrorCode::kInvalidArgument,
         fmt::format("serve: not allowed to listen on port {}; use one above 1023", port));
  }
  Fail(ErrorCode::kPortInUse,
       fmt::format("serve: {}:{} is taken by another process; stop it, or give another --port "
                   "(0 picks a free one)",
                   host, port));
}

}  // namespace tandem
