// How two that have just connected accept each other: the user is looked at,
// then they shake hands. For Listener and Connect.
//
// Thread safety: as a plain value.
#ifndef IPC_RENDEZVOUS_GREETING_H_
#define IPC_RENDEZVOUS_GREETING_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "ipc/base/deadline.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/connection.h"
#include "ipc/rendezvous/handshake.h"
#include "ipc/rendezvous/peer_policy.h"

namespace ipc::rendezvous::internal {

// InvalidArgument if the policy would let in anybody and does not say so.
absl::Status CheckPolicy(const PeerPolicy& policy, bool is_tcp);

class Greeting {
 public:
  // PermissionDenied if the peer's user is not allowed; as Advance if it has
  // gone.
  static absl::StatusOr<Greeting> Begin(UniqueFd fd, bool is_tcp,
                                        Handshake::Role role,
                                        const PeerPolicy& policy);

  // Goes on until it is over, true, or the time is up, false; Unauthenticated
  // if the peer failed, Unavailable if it is a listener and has gone.
  absl::StatusOr<bool> Advance(Deadline deadline);
  bool done() const { return !handshake_.has_value() || handshake_->done(); }

  // REQUIRES: done().
  absl::StatusOr<pipe::Connection> Take(
      const pipe::Connection::Options& options) &&;

  int fd() const { return connection_.fd(); }
  // For messages.
  const std::string& peer() const { return peer_; }
  // Nobody's, by TCP.
  std::optional<uid_t> uid() const { return uid_; }
  // How many messages of the peer were taken, each as it should be.
  int steps() const { return steps_; }

 private:
  Greeting(pipe::Connection connection, Handshake::Role role)
      : connection_(std::move(connection)), role_(role) {}

  absl::Status Perform(const Handshake::Step& step);
  absl::Status Gone(absl::string_view why) const;

  pipe::Connection connection_;  // takes no more than a handshake needs
  Handshake::Role role_;
  std::string peer_ = "the peer, by TCP,";
  std::optional<uid_t> uid_;
  std::optional<Handshake> handshake_;
  int steps_ = 0;
};

}  // namespace ipc::rendezvous::internal

#endif  // IPC_RENDEZVOUS_GREETING_H_
