#include "services/agent/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"

namespace parley::agent {

absl::StatusOr<Notifier> Notifier::FromEnvironment() {
  Notifier notifier;
  const char* value = getenv("NOTIFY_SOCKET");
  if (value == nullptr) return notifier;
  const std::string name = value;
  unsetenv("NOTIFY_SOCKET");

  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (name.size() < 2 || name.size() >= sizeof(address.sun_path) ||
      (name[0] != '@' && name[0] != '/')) {
    return absl::InvalidArgumentError(absl::StrCat(
        "NOTIFY_SOCKET=", name,
        " is neither an absolute path nor an abstract socket (\"@name\")"));
  }
  memcpy(address.sun_path, name.data(), name.size());
  // An abstract name begins with a zero byte and is not terminated.
  if (name[0] == '@') address.sun_path[0] = '\0';
  const socklen_t length =
      offsetof(sockaddr_un, sun_path) + name.size() + (name[0] == '/' ? 1 : 0);

  notifier.socket_.Reset(
      socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!notifier.socket_.ok()) {
    return ipc::PosixError(errno, "socket for NOTIFY_SOCKET");
  }
  if (connect(notifier.socket_.get(), reinterpret_cast<sockaddr*>(&address),
              length) != 0) {
    return ipc::PosixError(errno,
                           absl::StrCat("connecting to NOTIFY_SOCKET=", name));
  }
  return notifier;
}

absl::Status Notifier::Notify(absl::string_view assignments) const {
  if (!socket_.ok()) return absl::OkStatus();
  if (send(socket_.get(), assignments.data(), assignments.size(),
           MSG_NOSIGNAL) < 0) {
    if (errno == EAGAIN || errno == ENOBUFS) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "notifying \"", assignments, "\": the supervisor is behind"));
    }
    return ipc::PosixError(errno,
                           absl::StrCat("notifying \"", assignments, "\""));
  }
  return absl::OkStatus();
}

}  // namespace parley::agent
