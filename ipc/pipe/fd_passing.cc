#include "ipc/pipe/fd_passing.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"

namespace ipc::pipe {
namespace {

// Aligned as the kernel wants its control messages.
struct alignas(cmsghdr) Control {
  // The credentials are there if somebody has set SO_PASSCRED.
  char bytes[CMSG_SPACE(kMaxFds * sizeof(int)) + CMSG_SPACE(sizeof(ucred))];
};

std::byte CountByte(size_t count) { return static_cast<std::byte>(count); }

// Calls `attempt` until it does not ask to wait.
template <typename Attempt>
absl::Status Repeat(const Stream& stream, short events, Deadline deadline,
                    absl::string_view operation, Attempt attempt) {
  while (attempt() < 0) {
    if (errno == EINTR) continue;
    if (errno == EBADF) {
      return absl::FailedPreconditionError(absl::StrCat(
          operation, ": one of the descriptors is not open in this process"));
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
      return PosixError(errno, operation);
    }
    absl::StatusOr<bool> ready = WaitReady(stream, events, deadline);
    if (!ready.ok()) return ready.status();
    if (!*ready) {
      return absl::DeadlineExceededError(
          absl::StrCat(operation, ": timed out"));
    }
  }
  return absl::OkStatus();
}

// Takes what the kernel has opened in this process, wanted or not.
std::vector<UniqueFd> TakeFds(msghdr& message) {
  std::vector<UniqueFd> fds;
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr;
       control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
      fds.emplace_back(fd);
    }
  }
  return fds;
}

}  // namespace

absl::Status SendFdsOn(const Stream& stream, absl::Span<const int> fds,
                       Deadline deadline) {
  std::byte byte = CountByte(fds.size());
  iovec part = {.iov_base = &byte, .iov_len = 1};
  Control control = {};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
  cmsghdr* const rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  std::memcpy(CMSG_DATA(rights), fds.data(), fds.size() * sizeof(int));
  return Repeat(stream, POLLOUT, deadline, "sending descriptors", [&] {
    return sendmsg(stream.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  });
}

absl::StatusOr<ReceivedFds> ReceiveFdsOn(const Stream& stream, size_t max,
                                         Deadline deadline) {
  ReceivedFds received;
  iovec part = {.iov_base = &received.byte, .iov_len = 1};
  Control control = {};
  msghdr message = {};
  ssize_t n = 0;
  const absl::Status status =
      Repeat(stream, POLLIN, deadline, "receiving descriptors", [&] {
        message = {};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        n = recvmsg(stream.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        return n;
      });
  if (!status.ok()) return status;
  std::vector<UniqueFd> fds = TakeFds(message);
  if (n == 0) {
    return absl::OutOfRangeError("the peer has closed; no descriptors came");
  }
  // Truncated: there was no room for all, here or among our open files.
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "of the descriptors that came only ", fds.size(),
        " could be opened, and were closed again: raise RLIMIT_NOFILE"));
  }
  if (fds.size() > max) {
    return absl::ResourceExhaustedError(
        absl::StrCat(fds.size(), " descriptors came, at most ", max,
                     " were to be received; all were closed again"));
  }
  if (!fds.empty() && CountByte(fds.size()) != received.byte) {
    return absl::DataLossError(
        absl::StrCat("the peer announced ", static_cast<int>(received.byte),
                     " descriptors (modulo 256), but ", fds.size(), " came"));
  }
  received.fds = std::move(fds);
  return received;
}

}  // namespace ipc::pipe
