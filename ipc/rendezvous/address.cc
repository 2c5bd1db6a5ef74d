#include "ipc/rendezvous/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "ipc/base/posix_error.h"

namespace ipc::rendezvous {
namespace {

constexpr size_t kPathOffset = offsetof(sockaddr_un, sun_path);

absl::Status TooLong(const Address& address, size_t most) {
  return absl::InvalidArgumentError(absl::StrCat(
      "address ", address.ToString(), ": the name has ", address.name().size(),
      " bytes, where the kernel takes ", most, ": choose a shorter one"));
}

absl::StatusOr<Address::Socket> UnixSocket(const Address& address,
                                           bool abstract) {
  Address::Socket socket;
  sockaddr_un to = {};
  to.sun_family = AF_UNIX;
  const std::string& name = address.name();
  if (abstract) {
    constexpr size_t kMost = sizeof(to.sun_path) - 1;
    if (name.size() > kMost) return TooLong(address, kMost);
    std::memcpy(to.sun_path + 1, name.data(), name.size());
    // Without any byte of the name the kernel finds one: see "autobind".
    socket.size = static_cast<socklen_t>(
        name.empty() ? kPathOffset : kPathOffset + 1 + name.size());
  } else {
    constexpr size_t kMost = sizeof(to.sun_path) - 1;
    if (name.empty() || absl::StrContains(name, '\0')) {
      return absl::InvalidArgumentError(
          "a unix address without a path, or with a zero byte in it");
    }
    if (name.size() > kMost) return TooLong(address, kMost);
    std::memcpy(to.sun_path, name.data(), name.size());
    socket.size = static_cast<socklen_t>(kPathOffset + name.size() + 1);
  }
  std::memcpy(&socket.storage, &to, sizeof(to));
  return socket;
}

absl::StatusOr<Address::Socket> TcpSocket(const Address& address) {
  Address::Socket socket;
  const std::string host =
      address.name() == "localhost" ? "127.0.0.1" : address.name();
  sockaddr_in v4 = {};
  sockaddr_in6 v6 = {};
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1 &&
      (ntohl(v4.sin_addr.s_addr) >> 24) == 127) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(address.port());
    std::memcpy(&socket.storage, &v4, sizeof(v4));
    socket.size = sizeof(v4);
    return socket;
  }
  if (inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1 &&
      IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr)) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(address.port());
    std::memcpy(&socket.storage, &v6, sizeof(v6));
    socket.size = sizeof(v6);
    return socket;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "address ", address.ToString(),
      ": only localhost, 127.0.0.0/8 and ::1 are served, as nothing is "
      "encrypted; to reach another machine, tunnel"));
}

}  // namespace

Address Address::Unix(absl::string_view path) {
  return Address(Kind::kUnix, path, 0);
}

Address Address::Abstract(absl::string_view name) {
  return Address(Kind::kAbstract, name, 0);
}

Address Address::Tcp(absl::string_view host, uint16_t port) {
  return Address(Kind::kTcp, host, port);
}

absl::StatusOr<Address> Address::Parse(absl::string_view text) {
  absl::string_view rest = text;
  if (absl::ConsumePrefix(&rest, "unix:") && !rest.empty()) return Unix(rest);
  rest = text;
  if (absl::ConsumePrefix(&rest, "abstract:")) return Abstract(rest);
  rest = text;
  if (absl::ConsumePrefix(&rest, "tcp:")) {
    const size_t colon = rest.rfind(':');  // ::1 has some, too
    uint32_t port = 0;
    if (colon != absl::string_view::npos && colon > 0 &&
        absl::SimpleAtoi(rest.substr(colon + 1), &port) && port <= 65535) {
      return Tcp(rest.substr(0, colon), static_cast<uint16_t>(port));
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text,
                   "\" is no address: give unix:PATH, abstract:NAME or "
                   "tcp:HOST:PORT"));
}

std::string Address::ToString() const {
  switch (kind_) {
    case Kind::kUnix:
      return absl::StrCat("unix:", name_);
    case Kind::kAbstract:
      return absl::StrCat("abstract:", name_);
    case Kind::kTcp:
      break;
  }
  return absl::StrCat("tcp:", name_, ":", port_);
}

absl::StatusOr<Address::Socket> Address::ToSocket() const {
  switch (kind_) {
    case Kind::kUnix:
      return UnixSocket(*this, /*abstract=*/false);
    case Kind::kAbstract:
      return UnixSocket(*this, /*abstract=*/true);
    case Kind::kTcp:
      break;
  }
  return TcpSocket(*this);
}

absl::StatusOr<Address> Address::OfSocket(int fd) {
  sockaddr_storage storage = {};
  socklen_t size = sizeof(storage);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size) != 0) {
    return PosixError(errno, absl::StrCat("getsockname of fd ", fd));
  }
  char host[INET6_ADDRSTRLEN] = {};
  if (storage.ss_family == AF_INET) {
    sockaddr_in v4;
    std::memcpy(&v4, &storage, sizeof(v4));
    inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
    return Tcp(host, ntohs(v4.sin_port));
  }
  if (storage.ss_family == AF_INET6) {
    sockaddr_in6 v6;
    std::memcpy(&v6, &storage, sizeof(v6));
    inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host));
    return Tcp(host, ntohs(v6.sin6_port));
  }
  sockaddr_un un;
  std::memcpy(&un, &storage, sizeof(un));
  const size_t bytes = size < kPathOffset ? 0 : size - kPathOffset;
  if (bytes > 0 && un.sun_path[0] == '\0') {
    return Abstract(absl::string_view(un.sun_path + 1, bytes - 1));
  }
  return Unix(absl::string_view(un.sun_path, strnlen(un.sun_path, bytes)));
}

}  // namespace ipc::rendezvous
