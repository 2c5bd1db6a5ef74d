#include "ipc/rendezvous/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cstdint>
#include <list>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ipc/base/deadline.h"
#include "ipc/base/posix_error.h"
#include "ipc/rendezvous/greeting.h"
#include "ipc/rendezvous/handshake.h"
#include "ipc/rendezvous/socket_file.h"

namespace ipc::rendezvous {
namespace {

// What an event of the epoll is about, besides a client.
constexpr uint64_t kNewClient = 0;
constexpr uint64_t kTimer = 1;
constexpr uint64_t kFirstClient = 2;

// How often Accept goes on after its time is up, as long as there is something
// to do: enough for all who may be there, without an end to wait for.
constexpr int kLateEvents = 1000;

absl::StatusOr<UniqueFd> CreateSocket(int family) {
  UniqueFd fd(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.ok()) return PosixError(errno, "creating a socket");
  return fd;
}

absl::Status BindAndListen(int fd, const Address& address, int backlog) {
  absl::StatusOr<Address::Socket> to = address.ToSocket();
  if (!to.ok()) return to.status();
  const std::string context = absl::StrCat("listening at ", address.ToString());
  // A port that a listener used a moment ago is free again.
  const int on = 1;
  if (address.is_tcp()) {
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  }
  if (bind(fd, to->get(), to->size) != 0 || listen(fd, backlog) != 0) {
    if (errno == EADDRINUSE) {
      return absl::AlreadyExistsError(
          absl::StrCat(context, ": another process has this address"));
    }
    return PosixError(errno, context);
  }
  return absl::OkStatus();
}

}  // namespace

class Listener::Impl {
 public:
  Impl(UniqueFd socket, Address address,
       std::optional<internal::SocketFile> file, const ListenerOptions& options)
      : options_(options),
        address_(std::move(address)),
        file_(std::move(file)),
        socket_(std::move(socket)) {}

  absl::Status Begin();
  absl::StatusOr<pipe::Connection> Accept(Deadline deadline);

  const Address& address() const { return address_; }
  int poll_fd() const { return epoll_.get(); }

 private:
  // One who shakes hands.
  struct Client {
    uint64_t id;
    internal::Greeting greeting;
    Deadline deadline;
  };
  using Clients = std::list<Client>;
  using Accepted = absl::StatusOr<std::optional<pipe::Connection>>;

  absl::Status Watch(int operation, int fd, uint64_t id, uint32_t events) const;
  Accepted AcceptClient();
  Accepted Advance(Clients::iterator client);
  absl::Status DropLate();
  void Drop(Clients::iterator client);
  void SetTimer();
  bool IsFull() const { return clients_.size() >= options_.max_handshakes; }

  ListenerOptions options_;
  Address address_;
  std::optional<internal::SocketFile> file_;
  UniqueFd socket_;
  UniqueFd epoll_;
  UniqueFd timer_;   // for the first deadline
  Clients clients_;  // the first deadline first
  uint64_t next_id_ = kFirstClient;
};

absl::Status Listener::Impl::Watch(int operation, int fd, uint64_t id,
                                   uint32_t events) const {
  epoll_event event = {};
  event.events = events;
  event.data.u64 = id;
  if (epoll_ctl(epoll_.get(), operation, fd, &event) == 0) {
    return absl::OkStatus();
  }
  return PosixError(errno, absl::StrCat("epoll_ctl for fd ", fd));
}

absl::Status Listener::Impl::Begin() {
  epoll_.Reset(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_.ok()) return PosixError(errno, "epoll_create1");
  timer_.Reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer_.ok()) return PosixError(errno, "timerfd_create");
  if (auto status = Watch(EPOLL_CTL_ADD, timer_.get(), kTimer, EPOLLIN);
      !status.ok()) {
    return status;
  }
  return Watch(EPOLL_CTL_ADD, socket_.get(), kNewClient, EPOLLIN);
}

void Listener::Impl::SetTimer() {
  itimerspec when = {};  // never
  if (!clients_.empty()) {
    const absl::Duration left =
        std::max(clients_.front().deadline.Remaining(), absl::Nanoseconds(1));
    when.it_value = absl::ToTimespec(left);
  }
  timerfd_settime(timer_.get(), 0, &when, nullptr);
}

void Listener::Impl::Drop(Clients::iterator client) {
  const bool was_full = IsFull();
  // Not by its close: a forked child may have the descriptor still.
  Watch(EPOLL_CTL_DEL, client->greeting.fd(), 0, 0).IgnoreError();
  clients_.erase(client);
  SetTimer();
  if (was_full) {
    Watch(EPOLL_CTL_MOD, socket_.get(), kNewClient, EPOLLIN).IgnoreError();
  }
}

absl::Status Listener::Impl::DropLate() {
  if (clients_.empty() || !clients_.front().deadline.HasPassed()) {
    SetTimer();
    return absl::OkStatus();
  }
  const absl::Status late = absl::UnauthenticatedError(absl::StrCat(
      "accepting at ", address_.ToString(), ": ",
      clients_.front().greeting.peer(), " did not finish the handshake within ",
      absl::FormatDuration(options_.handshake_timeout)));
  Drop(clients_.begin());
  return late;
}

Listener::Impl::Accepted Listener::Impl::AcceptClient() {
  UniqueFd fd(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd.ok()) {
    switch (errno) {
      // It went away again, or another process was faster; and what accept(2)
      // says of errors that are about one client.
      case EAGAIN:
      case EINTR:
      case ECONNABORTED:
      case EPROTO:
        return std::nullopt;
      default:
        return PosixError(errno,
                          absl::StrCat("accepting at ", address_.ToString()));
    }
  }
  absl::StatusOr<internal::Greeting> greeting =
      internal::Greeting::Begin(std::move(fd), address_.is_tcp(),
                                Handshake::Role::kListener, options_.policy);
  if (!greeting.ok()) return greeting.status();
  if (greeting->done()) return (*std::move(greeting)).Take(options_.connection);
  const uint64_t id = next_id_++;
  if (auto status = Watch(EPOLL_CTL_ADD, greeting->fd(), id, EPOLLIN);
      !status.ok()) {
    return status;
  }
  clients_.push_back(
      {id, *std::move(greeting), Deadline::After(options_.handshake_timeout)});
  SetTimer();
  if (IsFull()) {
    Watch(EPOLL_CTL_MOD, socket_.get(), kNewClient, 0).IgnoreError();
  }
  return std::nullopt;
}

Listener::Impl::Accepted Listener::Impl::Advance(Clients::iterator client) {
  absl::StatusOr<bool> done = client->greeting.Advance(absl::ZeroDuration());
  if (!done.ok()) {
    Drop(client);
    return done.status();
  }
  if (!*done) return std::nullopt;
  internal::Greeting greeting = std::move(client->greeting);
  Watch(EPOLL_CTL_DEL, greeting.fd(), 0, 0).IgnoreError();
  Drop(client);
  return std::move(greeting).Take(options_.connection);
}

absl::StatusOr<pipe::Connection> Listener::Impl::Accept(Deadline deadline) {
  for (int late = 0;;) {
    epoll_event event = {};
    const int n = epoll_wait(epoll_.get(), &event, 1, deadline.PollTimeout());
    if (n < 0 && errno != EINTR) {
      return PosixError(
          errno, absl::StrCat("waiting for clients at ", address_.ToString()));
    }
    if (n <= 0 || late > kLateEvents) {
      if (!deadline.HasPassed()) continue;
      return absl::DeadlineExceededError(absl::StrCat(
          "accepting at ", address_.ToString(), ": nobody got in in time"));
    }
    if (deadline.HasPassed()) ++late;
    Accepted accepted = std::nullopt;
    if (event.data.u64 == kNewClient) {
      accepted = AcceptClient();
    } else if (event.data.u64 == kTimer) {
      if (auto status = DropLate(); !status.ok()) return status;
    } else {
      const auto client =
          std::find_if(clients_.begin(), clients_.end(),
                       [&](const Client& c) { return c.id == event.data.u64; });
      if (client != clients_.end()) accepted = Advance(client);
    }
    if (!accepted.ok()) {
      return Annotate(accepted.status(),
                      absl::StrCat("accepting at ", address_.ToString()));
    }
    if (accepted->has_value()) return **std::move(accepted);
  }
}

Listener::Listener(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Listener::Listener(Listener&&) noexcept = default;
Listener::~Listener() = default;

absl::StatusOr<Listener> Listener::Listen(const Address& address,
                                          const ListenerOptions& options) {
  if (auto status = internal::CheckPolicy(options.policy, address.is_tcp());
      !status.ok()) {
    return Annotate(status, absl::StrCat("listening at ", address.ToString()));
  }
  absl::StatusOr<Address::Socket> to = address.ToSocket();
  if (!to.ok()) return to.status();
  absl::StatusOr<UniqueFd> socket = CreateSocket(to->family());
  if (!socket.ok()) return socket.status();
  std::optional<internal::SocketFile> file;
  Address bound = address;
  if (address.kind() == Address::Kind::kUnix) {
    absl::StatusOr<internal::SocketFile> made = internal::SocketFile::Listen(
        socket->get(), address.name(), options.mode, options.backlog);
    if (!made.ok()) return made.status();
    file.emplace(*std::move(made));
  } else {
    if (auto status = BindAndListen(socket->get(), address, options.backlog);
        !status.ok()) {
      return status;
    }
    absl::StatusOr<Address> found = Address::OfSocket(socket->get());
    if (!found.ok()) return found.status();
    bound = *std::move(found);
  }
  auto impl = std::make_unique<Impl>(*std::move(socket), std::move(bound),
                                     std::move(file), options);
  if (auto status = impl->Begin(); !status.ok()) return status;
  return Listener(std::move(impl));
}

absl::StatusOr<Listener> Listener::FromFd(UniqueFd fd,
                                          const ListenerOptions& options) {
  int is_listening = 0;
  socklen_t size = sizeof(is_listening);
  if (getsockopt(fd.get(), SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &size) !=
          0 ||
      is_listening == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "fd ", fd.get(), " is not a socket that listens: call Listen"));
  }
  absl::StatusOr<Address> address = Address::OfSocket(fd.get());
  if (!address.ok()) return address.status();
  if (auto status = internal::CheckPolicy(options.policy, address->is_tcp());
      !status.ok()) {
    return Annotate(status, absl::StrCat("listening on fd ", fd.get()));
  }
  const int flags = fcntl(fd.get(), F_GETFL);
  if (flags < 0 || fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) != 0 ||
      fcntl(fd.get(), F_SETFD, FD_CLOEXEC) != 0) {
    return PosixError(errno, absl::StrCat("fcntl of fd ", fd.get()));
  }
  auto impl = std::make_unique<Impl>(std::move(fd), *std::move(address),
                                     std::nullopt, options);
  if (auto status = impl->Begin(); !status.ok()) return status;
  return Listener(std::move(impl));
}

absl::StatusOr<pipe::Connection> Listener::Accept(absl::Duration timeout) {
  if (impl_ == nullptr) {
    return absl::FailedPreconditionError(
        "accepting on a Listener that was moved from");
  }
  return impl_->Accept(Deadline::After(timeout));
}

const Address& Listener::address() const { return impl_->address(); }

int Listener::poll_fd() const {
  return impl_ == nullptr ? -1 : impl_->poll_fd();
}

}  // namespace ipc::rendezvous
