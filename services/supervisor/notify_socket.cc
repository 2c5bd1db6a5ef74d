#include "services/supervisor/notify_socket.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "ipc/base/posix_error.h"

namespace parley::supervisor {
namespace {

constexpr size_t kMaxDatagram = 4096;

Notification Parse(absl::string_view datagram) {
  Notification notification;
  for (absl::string_view line : absl::StrSplit(datagram, '\n')) {
    if (line == "READY=1") notification.ready = true;
    if (line == "STOPPING=1") notification.stopping = true;
    if (absl::ConsumePrefix(&line, "STATUS=")) {
      notification.status = std::string(line);
    }
  }
  return notification;
}

// Whether the kernel says that a process of our user, or root, sent it.
bool SentByUs(const msghdr& message) {
  for (const cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr;
       c = CMSG_NXTHDR(const_cast<msghdr*>(&message),
                       const_cast<cmsghdr*>(c))) {
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
      ucred credentials;
      memcpy(&credentials, CMSG_DATA(c), sizeof(credentials));
      return credentials.uid == geteuid() || credentials.uid == 0;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<NotifySocket> NotifySocket::Create() {
  NotifySocket result;
  result.fd_.Reset(
      socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!result.fd_.ok()) return ipc::PosixError(errno, "socket for notify");
  const int on = 1;
  if (setsockopt(result.fd_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) !=
      0) {
    return ipc::PosixError(errno, "SO_PASSCRED on the notify socket");
  }
  // An address of only the family: the kernel picks a free abstract name.
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (bind(result.fd_.get(), reinterpret_cast<sockaddr*>(&address),
           sizeof(sa_family_t)) != 0) {
    return ipc::PosixError(errno, "binding the notify socket");
  }
  socklen_t length = sizeof(address);
  if (getsockname(result.fd_.get(), reinterpret_cast<sockaddr*>(&address),
                  &length) != 0) {
    return ipc::PosixError(errno, "naming the notify socket");
  }
  const size_t name_length = length - offsetof(sockaddr_un, sun_path) - 1;
  result.name_ =
      absl::StrCat("@", absl::string_view(address.sun_path + 1, name_length));
  return result;
}

std::optional<Notification> NotifySocket::Receive() {
  while (true) {
    char data[kMaxDatagram];
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
    iovec buffer = {.iov_base = data, .iov_len = sizeof(data)};
    msghdr message = {};
    message.msg_iov = &buffer;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    // A sender may attach descriptors (FDSTORE=1): with no room for them the
    // kernel closes them.
    const ssize_t n = ipc::RetryOnEintr(
        [&] { return recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC); });
    if (n < 0) return std::nullopt;
    if (SentByUs(message)) return Parse(absl::string_view(data, n));
  }
}

}  // namespace parley::supervisor
