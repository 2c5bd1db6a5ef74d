#include "ipc/rendezvous/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/types.h>

#include <algorithm>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "ipc/base/deadline.h"
#include "ipc/base/posix_error.h"
#include "ipc/base/private_fds.h"
#include "ipc/base/unique_fd.h"
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
  // `socket` is one of `fds`, which `file` uses, too.
  Impl(std::unique_ptr<PrivateFds> fds, int socket, Address address,
       std::optional<internal::SocketFile> file, const ListenerOptions& options)
      : options_(options),
        max_handshakes_(std::max(options.max_handshakes, size_t{1})),
        fds_(std::move(fds)),
        address_(std::move(address)),
        file_(std::move(file)),
        socket_(socket) {}
  // REQUIRES: not in_child().
  ~Impl();

  absl::Status Begin();
  absl::StatusOr<pipe::Connection> Accept(Deadline deadline);

  const Address& address() const { return address_; }
  int poll_fd() const { return epoll_; }
  bool in_child() const { return fds_->in_child(); }

 private:
  // One who shakes hands.
  struct Client {
    uint64_t id;
    internal::Greeting greeting;
    // For his next message; and from when on his place may be another's.
    Deadline deadline;
    Deadline crowded_deadline;
  };
  using Clients = std::list<Client>;
  using Accepted = absl::StatusOr<std::optional<pipe::Connection>>;

  absl::Status Watch(int operation, int fd, uint64_t id, uint32_t events) const;
  Accepted AcceptClient();
  Accepted Advance(Clients::iterator client);
  Accepted OnTimer();
  Accepted DropUnlessHeard(Clients::iterator client, absl::string_view why);
  Clients::iterator FirstToGo();
  void Remove(Clients::iterator client, Clients* removed);
  void Drop(Clients::iterator client);
  void AwaitRoom(bool awaits);
  void SetTimer();
  Deadline ForMessage() const {
    return Deadline::After(options_.handshake_timeout);
  }
  Deadline ForCrowded() const {
    return Deadline::After(
        std::min(options_.crowded_timeout, options_.handshake_timeout));
  }
  bool IsFull() const { return clients_.size() >= max_handshakes_; }

  const ListenerOptions options_;
  const size_t max_handshakes_;
  const std::unique_ptr<PrivateFds> fds_;
  const Address address_;
  std::optional<internal::SocketFile> file_;
  const int socket_;
  int epoll_ = -1;
  int timer_ = -1;   // for the first deadline
  Clients clients_;  // the first deadline first; their descriptors are listed
  // Whether somebody has to wait until one of them has gone; else the socket is
  // watched.
  bool awaits_room_ = false;
  uint64_t next_id_ = kFirstClient;
};

Listener::Impl::~Impl() {
  // Before the socket is closed: who finds the file finds somebody.
  file_.reset();
  const std::lock_guard<std::mutex> guard(PrivateFds::fork_lock());
  for (const Client& client : clients_) fds_->Unlist(client.greeting.fd());
  clients_.clear();
}

absl::Status Listener::Impl::Watch(int operation, int fd, uint64_t id,
                                   uint32_t events) const {
  epoll_event event = {};
  event.events = events;
  event.data.u64 = id;
  if (epoll_ctl(epoll_, operation, fd, &event) == 0) return absl::OkStatus();
  return PosixError(errno, absl::StrCat("epoll_ctl for fd ", fd));
}

absl::Status Listener::Impl::Begin() {
  epoll_ = fds_->Open([] { return epoll_create1(EPOLL_CLOEXEC); });
  if (epoll_ < 0) return PosixError(errno, "epoll_create1");
  timer_ = fds_->Open([] {
    return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  });
  if (timer_ < 0) return PosixError(errno, "timerfd_create");
  if (auto status = Watch(EPOLL_CTL_ADD, timer_, kTimer, EPOLLIN);
      !status.ok()) {
    return status;
  }
  return Watch(EPOLL_CTL_ADD, socket_, kNewClient, EPOLLIN);
}

void Listener::Impl::SetTimer() {
  itimerspec when = {};  // never
  if (!clients_.empty()) {
    Deadline first = clients_.front().deadline;
    if (awaits_room_) {
      first = Deadline::Earlier(first, FirstToGo()->crowded_deadline);
    }
    if (!first.is_infinite()) {
      when.it_value =
          absl::ToTimespec(std::max(first.Remaining(), absl::Nanoseconds(1)));
    }
  }
  timerfd_settime(timer_, 0, &when, nullptr);
}

void Listener::Impl::AwaitRoom(bool awaits) {
  if (awaits_room_ == awaits) return;
  awaits_room_ = awaits;
  Watch(EPOLL_CTL_MOD, socket_, kNewClient, awaits ? 0u : EPOLLIN)
      .IgnoreError();
}

void Listener::Impl::Remove(Clients::iterator client, Clients* removed) {
  // Not by its close: a child of a raw clone(2) may have the descriptor still.
  Watch(EPOLL_CTL_DEL, client->greeting.fd(), 0, 0).IgnoreError();
  fds_->Unlist(client->greeting.fd());
  removed->splice(removed->end(), clients_, client);
  AwaitRoom(false);
  SetTimer();
}

void Listener::Impl::Drop(Clients::iterator client) {
  const std::lock_guard<std::mutex> guard(PrivateFds::fork_lock());
  Clients removed;
  Remove(client, &removed);
}

// Who has to make room if somebody has to: of the user who has most of them,
// one who has got least far, the first of those. So whoever has many, or does
// not have the key, has them at the cost of his own.
Listener::Impl::Clients::iterator Listener::Impl::FirstToGo() {
  std::map<std::optional<uid_t>, int> clients_of;
  for (const Client& client : clients_) ++clients_of[client.greeting.uid()];
  const auto rank = [&](const Client& client) {
    return std::pair(-clients_of[client.greeting.uid()],
                     client.greeting.steps());
  };
  // The first of several, and those are sorted by their time.
  return std::min_element(
      clients_.begin(), clients_.end(),
      [&](const Client& a, const Client& b) { return rank(a) < rank(b); });
}

// Nobody is late who has sent what he had to, whenever we come to read it.
Listener::Impl::Accepted Listener::Impl::DropUnlessHeard(
    Clients::iterator client, absl::string_view why) {
  const int steps = client->greeting.steps();
  Accepted accepted = Advance(client);
  if (!accepted.ok() || accepted->has_value()) return accepted;
  if (client->greeting.steps() > steps) return std::nullopt;
  const absl::Status late = absl::UnauthenticatedError(
      absl::StrCat(client->greeting.peer(),
                   " did not go on with the handshake within ", why));
  Drop(client);
  return late;
}

Listener::Impl::Accepted Listener::Impl::OnTimer() {
  // Whether anybody still waits for a place is seen by watching; he who has to
  // make room is found there.
  AwaitRoom(false);
  if (!clients_.empty() && clients_.front().deadline.HasPassed()) {
    return DropUnlessHeard(clients_.begin(),
                           absl::FormatDuration(options_.handshake_timeout));
  }
  SetTimer();
  return std::nullopt;
}

Listener::Impl::Accepted Listener::Impl::AcceptClient() {
  if (IsFull()) {
    const auto first = FirstToGo();
    if (!first->crowded_deadline.HasPassed()) {
      AwaitRoom(true);
      SetTimer();
      return std::nullopt;
    }
    return DropUnlessHeard(
        first, absl::StrCat(absl::FormatDuration(options_.crowded_timeout),
                            ", and somebody else waits for the place"));
  }
  // With the lock, so that no child gets him.
  const std::lock_guard<std::mutex> guard(PrivateFds::fork_lock());
  UniqueFd fd(accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC));
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
        return PosixError(errno, "accept4");
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
  fds_->List(greeting->fd());
  clients_.push_back({id, *std::move(greeting), ForMessage(), ForCrowded()});
  SetTimer();
  return std::nullopt;
}

Listener::Impl::Accepted Listener::Impl::Advance(Clients::iterator client) {
  const int steps = client->greeting.steps();
  absl::StatusOr<bool> done =
      client->greeting.Advance(Deadline::After(absl::ZeroDuration()));
  if (!done.ok()) {
    Drop(client);
    return done.status();
  }
  if (*done) {
    Clients removed;
    {
      const std::lock_guard<std::mutex> guard(PrivateFds::fork_lock());
      Remove(client, &removed);
    }
    return std::move(removed.front().greeting).Take(options_.connection);
  }
  if (client->greeting.steps() > steps) {
    client->deadline = ForMessage();
    client->crowded_deadline = ForCrowded();
    clients_.splice(clients_.end(), clients_, client);
    SetTimer();
  }
  return std::nullopt;
}

absl::StatusOr<pipe::Connection> Listener::Impl::Accept(Deadline deadline) {
  for (int late = 0;;) {
    epoll_event event = {};
    const int n = epoll_wait(epoll_, &event, 1, deadline.PollTimeout());
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
      accepted = OnTimer();
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
Listener::~Listener() {
  if (impl_ == nullptr || !impl_->in_child()) return;
  // A child has its memory, which another thread of the parent may have been
  // changing, and nothing that would have to be given back. So it is kept.
  using Impls = std::vector<std::unique_ptr<Impl>>;
  // Without memory for a vector, a child may end.
  static auto* const of_parents =
      new Impls;  // NOLINT(bugprone-unhandled-exception-at-new): see above
  const std::lock_guard<std::mutex> guard(PrivateFds::fork_lock());
  of_parents->push_back(std::move(impl_));
}

absl::StatusOr<Listener> Listener::Listen(const Address& address,
                                          const ListenerOptions& options) {
  if (auto status = internal::CheckPolicy(options.policy, address.is_tcp());
      !status.ok()) {
    return Annotate(status, absl::StrCat("listening at ", address.ToString()));
  }
  absl::StatusOr<Address::Socket> to = address.ToSocket();
  if (!to.ok()) return to.status();
  absl::StatusOr<std::unique_ptr<PrivateFds>> fds = PrivateFds::Create();
  if (!fds.ok()) return fds.status();
  const int fd = (*fds)->Open([&] {
    return socket(to->family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  });
  if (fd < 0) return PosixError(errno, "creating a socket");
  std::optional<internal::SocketFile> file;
  Address bound = address;
  if (address.kind() == Address::Kind::kUnix) {
    absl::StatusOr<internal::SocketFile> made = internal::SocketFile::Listen(
        fd, address.name(), options.mode, options.backlog, **fds);
    if (!made.ok()) return made.status();
    file.emplace(*std::move(made));
  } else {
    if (auto status = BindAndListen(fd, address, options.backlog);
        !status.ok()) {
      return status;
    }
    absl::StatusOr<Address> found = Address::OfSocket(fd);
    if (!found.ok()) return found.status();
    bound = *std::move(found);
  }
  auto impl = std::make_unique<Impl>(*std::move(fds), fd, std::move(bound),
                                     std::move(file), options);
  if (auto status = impl->Begin(); !status.ok()) return status;
  return Listener(std::move(impl));
}

absl::StatusOr<Listener> Listener::FromFd(UniqueFd fd,
                                          const ListenerOptions& options) {
  const auto option = [&](int name) {
    int value = -1;
    socklen_t size = sizeof(value);
    return getsockopt(fd.get(), SOL_SOCKET, name, &value, &size) == 0 ? value
                                                                      : -1;
  };
  if (option(SO_ACCEPTCONN) != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "fd ", fd.get(), " is not a socket that listens: call Listen"));
  }
  const int domain = option(SO_DOMAIN);
  if (option(SO_TYPE) != SOCK_STREAM ||
      (domain != AF_UNIX && domain != AF_INET && domain != AF_INET6)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "fd ", fd.get(), " is not a stream socket, a unix or a TCP one"));
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
  absl::StatusOr<std::unique_ptr<PrivateFds>> fds = PrivateFds::Create();
  if (!fds.ok()) return fds.status();
  const int number = (*fds)->Open([&] { return fd.Release(); });
  auto impl = std::make_unique<Impl>(
      *std::move(fds), number, *std::move(address), std::nullopt, options);
  if (auto status = impl->Begin(); !status.ok()) return status;
  return Listener(std::move(impl));
}

absl::StatusOr<pipe::Connection> Listener::Accept(absl::Duration timeout) {
  if (impl_ == nullptr) {
    return absl::FailedPreconditionError(
        "accepting on a Listener that was moved from");
  }
  if (impl_->in_child()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "accepting at ", impl_->address().ToString(),
        " in a forked child: that is its parent's, so listen after the fork"));
  }
  return impl_->Accept(Deadline::After(timeout));
}

const Address& Listener::address() const {
  static const auto* const nowhere = new Address(Address::Unix(""));
  return impl_ == nullptr ? *nowhere : impl_->address();
}

int Listener::poll_fd() const {
  return impl_ == nullptr || impl_->in_child() ? -1 : impl_->poll_fd();
}

}  // namespace ipc::rendezvous
