#include "ipc/rendezvous/greeting.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "ipc/base/posix_error.h"

namespace ipc::rendezvous::internal {
namespace {

absl::Status CheckUser(const PeerPolicy& policy, uid_t uid,
                       absl::string_view peer) {
  if (policy.any_user) return absl::OkStatus();
  const std::vector<uid_t>& allowed = policy.allowed_uids;
  const bool is_allowed =
      allowed.empty()
          ? uid == geteuid()
          : std::find(allowed.begin(), allowed.end(), uid) != allowed.end();
  if (is_allowed) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      peer, " is of a user that is not allowed: see allowed_uids"));
}

}  // namespace

absl::Status CheckPolicy(const PeerPolicy& policy, bool is_tcp) {
  if (!is_tcp || policy.auth_key.has_value() || policy.any_user) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "TCP tells nobody's user: set an auth_key, or any_user to let in "
      "whoever is on this machine");
}

absl::StatusOr<Greeting> Greeting::Begin(UniqueFd fd, bool is_tcp,
                                         Handshake::Role role,
                                         const PeerPolicy& policy) {
  const int number = fd.get();
  absl::StatusOr<pipe::Connection> connection = pipe::Connection::FromFd(
      std::move(fd), {.max_message_bytes = Handshake::kMaxMessageBytes});
  if (!connection.ok()) return connection.status();
  Greeting greeting(*std::move(connection), role);
  if (is_tcp) {
    // A message is written at once, so there is nothing to wait for.
    const int on = 1;
    setsockopt(number, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  } else {
    absl::StatusOr<pipe::PeerCredentials> peer = greeting.connection_.peer();
    if (!peer.ok()) return peer.status();
    greeting.uid_ = peer->uid;
    greeting.peer_ =
        absl::StrCat("process ", peer->pid, " of user ", peer->uid);
    if (auto status = CheckUser(policy, peer->uid, greeting.peer_);
        !status.ok()) {
      return status;
    }
  }
  if (policy.auth_key.has_value()) {
    greeting.handshake_.emplace(role, *policy.auth_key, policy.allow_md5);
    if (auto status = greeting.Perform(greeting.handshake_->Start());
        !status.ok()) {
      return status;
    }
  }
  return greeting;
}

absl::Status Greeting::Gone(absl::string_view why) const {
  if (role_ == Handshake::Role::kClient) {
    // It may have been killed, and the next one be better.
    return absl::UnavailableError(absl::StrCat(
        peer_, " went away in the handshake, which it does if it is killed, ",
        "or has no place for the slow: ", why));
  }
  return absl::UnauthenticatedError(absl::StrCat(
      peer_, " went away in the handshake, so it has no auth_key or another ",
      "one, or was killed: ", why));
}

absl::Status Greeting::Perform(const Handshake::Step& step) {
  for (const std::string& message : step.send) {
    // So few bytes always have room, unless the peer plays tricks.
    const absl::Status sent = connection_.Send(message, absl::ZeroDuration());
    // Why the handshake failed matters more than that nobody wants to know.
    if (!sent.ok() && step.status.ok()) return Gone(sent.message());
  }
  return Annotate(step.status, peer_);
}

absl::StatusOr<bool> Greeting::Advance(Deadline deadline) {
  while (!done()) {
    absl::StatusOr<std::string> message =
        connection_.Receive(deadline.Remaining());
    if (absl::IsDeadlineExceeded(message.status())) return false;
    if (absl::IsOutOfRange(message.status()) ||
        absl::IsUnavailable(message.status())) {
      return Gone(message.status().message());
    }
    if (!message.ok()) {
      return absl::UnauthenticatedError(absl::StrCat(
          peer_, " did not finish the handshake, so it has no auth_key or ",
          "another one: ", message.status().message()));
    }
    if (auto status = Perform(handshake_->Take(*message)); !status.ok()) {
      return status;
    }
    ++steps_;
  }
  return true;
}

absl::StatusOr<pipe::Connection> Greeting::Take(
    const pipe::Connection::Options& options) && {
  absl::StatusOr<UniqueFd> fd = connection_.Release();
  if (!fd.ok()) return fd.status();
  return pipe::Connection::FromFd(*std::move(fd), options);
}

}  // namespace ipc::rendezvous::internal
