#include "ipc/rendezvous/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "ipc/base/deadline.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/unique_fd.h"
#include "ipc/rendezvous/greeting.h"
#include "ipc/rendezvous/handshake.h"

namespace ipc::rendezvous {
namespace {

absl::Status TooLate() {
  return absl::DeadlineExceededError("the listener did not accept in time");
}

// A unix socket whose listener has a full backlog says EAGAIN if it must not
// block, and nothing tells when there is room; so it blocks, for a time.
absl::Status ConnectUnix(int fd, const Address::Socket& to, Deadline deadline) {
  while (true) {
    if (!deadline.is_infinite()) {
      // Zero would be for ever.
      timeval time = absl::ToTimeval(
          std::max(deadline.Remaining(), absl::Microseconds(1000)));
      setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof(time));
    }
    if (connect(fd, to.get(), to.size) == 0) break;
    if (errno != EAGAIN && errno != EINTR) return PosixError(errno, "connect");
    if (deadline.HasPassed()) return TooLate();
  }
  const timeval never = {};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &never, sizeof(never));
  return absl::OkStatus();
}

absl::Status ConnectTcp(int fd, const Address::Socket& to, Deadline deadline) {
  fcntl(fd, F_SETFL, O_NONBLOCK);
  if (connect(fd, to.get(), to.size) != 0) {
    // An interrupted one goes on as well.
    if (errno != EINPROGRESS && errno != EINTR) {
      return PosixError(errno, "connect");
    }
    pollfd ready = {.fd = fd, .events = POLLOUT, .revents = 0};
    int n;
    while ((n = poll(&ready, 1, deadline.PollTimeout())) <= 0) {
      if (n < 0 && errno != EINTR) return PosixError(errno, "poll");
      if (deadline.HasPassed()) return TooLate();
    }
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
      return PosixError(errno, "getsockopt");
    }
    if (error != 0) return PosixError(error, "connect");
  }
  fcntl(fd, F_SETFL, 0);
  return absl::OkStatus();
}

absl::StatusOr<pipe::Connection> TryConnect(const Address& address,
                                            const ConnectOptions& options) {
  const Deadline deadline = Deadline::After(options.timeout);
  const bool is_tcp = address.is_tcp();
  // Here it is the listener that might be anybody.
  if (auto status = internal::CheckPolicy(options.policy, is_tcp);
      !status.ok()) {
    return status;
  }
  absl::StatusOr<Address::Socket> to = address.ToSocket();
  if (!to.ok()) return to.status();
  UniqueFd fd(socket(to->family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.ok()) return PosixError(errno, "creating a socket");
  const absl::Status connected = is_tcp ? ConnectTcp(fd.get(), *to, deadline)
                                        : ConnectUnix(fd.get(), *to, deadline);
  if (!connected.ok()) return connected;
  absl::StatusOr<internal::Greeting> greeting = internal::Greeting::Begin(
      std::move(fd), is_tcp, Handshake::Role::kClient, options.policy);
  if (!greeting.ok()) return greeting.status();
  absl::StatusOr<bool> done = greeting->Advance(deadline);
  if (!done.ok()) return done.status();
  if (!*done) {
    return absl::DeadlineExceededError(
        "the listener did not finish the handshake in time: it is busy, or "
        "does not ask for an auth_key");
  }
  return (*std::move(greeting)).Take(options.connection);
}

}  // namespace

absl::StatusOr<pipe::Connection> Connect(const Address& address,
                                         const ConnectOptions& options) {
  absl::StatusOr<pipe::Connection> connection = TryConnect(address, options);
  if (connection.ok()) return connection;
  return Annotate(connection.status(),
                  absl::StrCat("connecting to ", address.ToString()));
}

}  // namespace ipc::rendezvous
