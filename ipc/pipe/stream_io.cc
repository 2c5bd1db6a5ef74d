#include "ipc/pipe/stream_io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"
#include "ipc/pipe/sigpipe.h"

namespace ipc::pipe {
namespace {

// Newer than the libc headers of Debian 12.
#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL 0x00000100
#endif

bool IsMissing(const Stream& stream, int flag) {
  return (*stream.missing_flags & flag) != 0;
}

// Whether a call with `flags` failed for lack of one of them, which is then on
// record. Which one, nobody says: the newest is given up first, and is innocent
// if without it the other one is missing still.
bool NoteMissing(const Stream& stream, int error, int flags) {
  // ENOSYS: a sandbox that does not know preadv2.
  if (error != EOPNOTSUPP && error != ENOSYS) return false;
  if ((flags & RWF_NOSIGNAL) != 0) {
    *stream.missing_flags |= RWF_NOSIGNAL;
    return true;
  }
  if ((flags & RWF_NOWAIT) != 0) {
    *stream.missing_flags = RWF_NOWAIT;
    return true;
  }
  return false;
}

bool WouldBlock(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

// One attempt; -1 and EAGAIN if `wait` is false and nothing is there.
ssize_t Read(const Stream& stream, absl::Span<std::byte> bytes, bool wait) {
  if (stream.kind == StreamKind::kSocket) {
    return recv(stream.fd, bytes.data(), bytes.size(), wait ? 0 : MSG_DONTWAIT);
  }
  if (wait) return read(stream.fd, bytes.data(), bytes.size());
  const iovec part = {.iov_base = bytes.data(), .iov_len = bytes.size()};
  if (!IsMissing(stream, RWF_NOWAIT)) {
    const ssize_t n = preadv2(stream.fd, &part, 1, -1, RWF_NOWAIT);
    if (n >= 0 || !NoteMissing(stream, errno, RWF_NOWAIT)) return n;
  }
  pollfd p = {.fd = stream.fd, .events = POLLIN, .revents = 0};
  const int ready = poll(&p, 1, 0);
  if (ready < 0) return -1;
  if (ready == 0) {
    errno = EAGAIN;
    return -1;
  }
  // Takes what is there; blocks only for the first byte.
  return read(stream.fd, bytes.data(), bytes.size());
}

// The same of a socket with SO_PASSCRED; sets `*sender` if the kernel tells.
ssize_t ReadFrom(const Stream& stream, absl::Span<std::byte> bytes, bool wait,
                 pid_t* sender) {
  iovec part = {.iov_base = bytes.data(), .iov_len = bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t n = recvmsg(stream.fd, &message,
                            MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
  if (n < 0) return n;
  const cmsghdr* const first = CMSG_FIRSTHDR(&message);
  if (first != nullptr && first->cmsg_level == SOL_SOCKET &&
      first->cmsg_type == SCM_CREDENTIALS) {
    ucred from;
    std::memcpy(&from, CMSG_DATA(first), sizeof(from));
    *sender = from.pid;
  }
  return n;
}

size_t Sum(const iovec* parts, int count) {
  size_t sum = 0;
  for (int i = 0; i < count; ++i) sum += parts[i].iov_len;
  return sum;
}

// Writes to a pipe by pwritev2 with `flags`, doing what RWF_NOSIGNAL does by
// other means if need be. There are no other means for RWF_NOWAIT: EAGAIN.
ssize_t WritePipe(const Stream& stream, const iovec* parts, int count,
                  int flags) {
  const int fd = stream.fd;
  while (true) {
    const int known = flags & ~*stream.missing_flags;
    if (((flags ^ known) & RWF_NOWAIT) != 0) {
      errno = EAGAIN;
      return -1;
    }
    ssize_t n;
    if ((known & RWF_NOSIGNAL) != 0) {
      n = pwritev2(fd, parts, count, -1, known);
    } else {
      SigpipeGuard guard;
      n = known == 0 ? writev(fd, parts, count)
                     : pwritev2(fd, parts, count, -1, known);
      // The last reader may go in the middle: then it is raised as well.
      if (n < 0 ? errno == EPIPE : static_cast<size_t>(n) < Sum(parts, count)) {
        guard.Consume();
      }
    }
    if (n >= 0 || !NoteMissing(stream, errno, known)) return n;
  }
}

// One attempt; -1 and EAGAIN if `wait` is false and there is no room.
ssize_t Write(const Stream& stream, const iovec* parts, int count, bool wait) {
  if (stream.kind == StreamKind::kSocket) {
    msghdr message = {};
    message.msg_iov = const_cast<iovec*>(parts);
    message.msg_iovlen = static_cast<size_t>(count);
    return sendmsg(stream.fd, &message,
                   MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
  }
  if (wait) return WritePipe(stream, parts, count, RWF_NOSIGNAL);
  if (!IsMissing(stream, RWF_NOWAIT)) {
    const ssize_t n =
        WritePipe(stream, parts, count, RWF_NOSIGNAL | RWF_NOWAIT);
    if (n >= 0 || !IsMissing(stream, RWF_NOWAIT)) return n;
  }
  pollfd p = {.fd = stream.fd, .events = POLLOUT, .revents = 0};
  const int ready = poll(&p, 1, 0);
  if (ready < 0) return -1;
  if (ready == 0) {
    errno = EAGAIN;
    return -1;
  }
  // Room for one page at least, so for PIPE_BUF bytes.
  std::array<iovec, kPartsInOnePiece> some;
  size_t used = 0;
  for (size_t left = PIPE_BUF;
       used < std::min<size_t>(count, some.size()) && left > 0; ++used) {
    iovec& part = some[used];
    part = parts[used];
    part.iov_len = std::min(part.iov_len, left);
    left -= part.iov_len;
  }
  return WritePipe(stream, some.data(), static_cast<int>(used), RWF_NOSIGNAL);
}

// Repeats `attempt`, a call of Read or Write that takes whether to wait, until
// it gets something done or the deadline passes. An attempt comes before the
// first poll, as a channel in use is mostly ready, and that is then all it
// costs; without a deadline the attempt itself does the waiting.
template <typename Attempt>
absl::StatusOr<size_t> Repeat(const Stream& stream, short events,
                              Deadline deadline, absl::string_view operation,
                              Attempt attempt) {
  while (true) {
    const ssize_t n = attempt(deadline.is_infinite());
    if (n >= 0) return static_cast<size_t>(n);
    if (errno == EINTR) continue;
    if (!WouldBlock(errno)) return PosixError(errno, operation);
    // Also without a deadline, if somebody did set O_NONBLOCK.
    absl::StatusOr<bool> ready = WaitReady(stream, events, deadline);
    if (!ready.ok()) return ready.status();
    if (!*ready) {
      return absl::DeadlineExceededError(
          absl::StrCat(operation, ": timed out"));
    }
  }
}

}  // namespace

void SetBuffer(const Stream& stream, size_t bytes) {
  const int wanted = static_cast<int>(std::min<size_t>(bytes, INT_MAX / 2));
  if (stream.kind == StreamKind::kPipe) {
    // The kernel rounds up to a power of two, and refuses what is too large. A
    // smaller one would be refused if it held more already.
    const int now = fcntl(stream.fd, F_GETPIPE_SZ);
    if (now < 0) return;  // the descriptor was taken from under us
    for (int size = wanted; size > now; size /= 2) {
      if (fcntl(stream.fd, F_SETPIPE_SZ, size) >= 0) return;
    }
    return;
  }
  int family = 0;
  socklen_t family_size = sizeof(family);
  int now = 0;
  socklen_t now_size = sizeof(now);
  if (getsockopt(stream.fd, SOL_SOCKET, SO_DOMAIN, &family, &family_size) !=
          0 ||
      family != AF_UNIX ||
      getsockopt(stream.fd, SOL_SOCKET, SO_SNDBUF, &now, &now_size) != 0 ||
      wanted <= now) {
    return;
  }
  // The kernel doubles it, and tells the double; it takes no more than it may.
  const int half = wanted / 2;
  setsockopt(stream.fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half));
}

absl::StatusOr<bool> WaitReady(const Stream& stream, short events,
                               Deadline deadline) {
  pollfd p = {.fd = stream.fd, .events = events, .revents = 0};
  while (true) {
    const int ready = poll(&p, 1, deadline.PollTimeout());
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return PosixError(errno, "poll");
    // After an interruption too, or a storm of signals would outlast it.
    if (deadline.HasPassed()) return false;
  }
}

absl::StatusOr<size_t> ReadSome(const Stream& stream,
                                absl::Span<std::byte> bytes,
                                Deadline deadline) {
  return Repeat(stream, POLLIN, deadline, "read",
                [&](bool wait) { return Read(stream, bytes, wait); });
}

ssize_t TryRead(const Stream& stream, absl::Span<std::byte> bytes) {
  return stream.kind == StreamKind::kSocket
             ? recv(stream.fd, bytes.data(), bytes.size(), 0)
             : read(stream.fd, bytes.data(), bytes.size());
}

absl::StatusOr<size_t> ReadSomeFrom(const Stream& stream,
                                    absl::Span<std::byte> bytes,
                                    Deadline deadline, pid_t* sender) {
  *sender = 0;
  return Repeat(stream, POLLIN, deadline, "read", [&](bool wait) {
    return ReadFrom(stream, bytes, wait, sender);
  });
}

absl::StatusOr<size_t> WriteSome(const Stream& stream,
                                 absl::Span<const iovec> parts,
                                 Deadline deadline) {
  const int count = static_cast<int>(std::min<size_t>(parts.size(), IOV_MAX));
  return Repeat(stream, POLLOUT, deadline, "write", [&](bool wait) {
    return Write(stream, parts.data(), count, wait);
  });
}

ssize_t TryWrite(const Stream& stream, absl::Span<const std::byte> bytes) {
  if (stream.kind == StreamKind::kSocket) {
    return send(stream.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  if (IsMissing(stream, RWF_NOSIGNAL)) return 0;
  const iovec part = PartOf(bytes);
  return pwritev2(stream.fd, &part, 1, -1, RWF_NOSIGNAL);
}

absl::Status WriteAll(const Stream& stream, absl::Span<iovec> parts,
                      Deadline deadline, size_t* written) {
  *written = 0;
  while (true) {
    // Or the old way of a pipe might find nothing but these in its first parts.
    while (!parts.empty() && parts.front().iov_len == 0) parts.remove_prefix(1);
    if (parts.empty()) return absl::OkStatus();
    absl::StatusOr<size_t> n = WriteSome(stream, parts, deadline);
    if (!n.ok()) return n.status();
    *written += *n;
    while (*n > 0) {
      iovec& part = parts.front();
      const size_t taken = std::min(*n, part.iov_len);
      part.iov_base = static_cast<std::byte*>(part.iov_base) + taken;
      part.iov_len -= taken;
      *n -= taken;
      if (part.iov_len == 0) parts.remove_prefix(1);
    }
  }
}

}  // namespace ipc::pipe
