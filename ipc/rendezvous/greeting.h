// How two that have just connected accept each other: the user is looked at,
// then they shake hands. For Listener and Connect.
//
// Thread safety: as a plain value.
#ifndef IPC_RENDEZVOUS_GREETING_H_
#define IPC_RENDEZVOUS_GREETING_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"
#include "ipc/rendezvous/handshake.h"
#include "ipc/rendezvous/peer_policy.h"

namespace ipc::rendezvous::internal {

// InvalidArgument if the policy would let in anybody and does not say so.
absl::Status CheckPolicy(const PeerPolicy& policy, bool is_tcp);

class Greeting {
 public:
  // PermissionDenied if the peer's user is not allowed; Unauthenticated if it
  // has gone.
  static absl::StatusOr<Greeting> Begin(UniqueFd fd, bool is_tcp,
                                        Handshake::Role role,
                                        const PeerPolicy& policy);

  // Goes on until it is over, true, or the time is up, false; Unauthenticated
  // if the peer failed.
  absl::StatusOr<bool> Advance(absl::Duration timeout);
  bool done() const { return !handshake_.has_value() || handshake_->done(); }

  // REQUIRES: done().
  absl::StatusOr<pipe::Connection> Take(
      const pipe::Connection::Options& options) &&;

  int fd() const { return connection_.fd(); }
  // For messages.
  const std::string& peer() const { return peer_; }

 private:
  Greeting(pipe::Connection connection, std::string peer)
      : connection_(std::move(connection)), peer_(std::move(peer)) {}

  absl::Status Perform(const Handshake::Step& step);

  pipe::Connection connection_;  // takes no more than a handshake needs
  std::string peer_;
  std::optional<Handshake> handshake_;
};

}  // namespace ipc::rendezvous::internal

#endif  // IPC_RENDEZVOUS_GREETING_H_
