// Connects to a Listener, of ours or of Python's multiprocessing.connection: as
// its Client does.
//
// Example:
//
//   ConnectOptions options;
//   options.policy.auth_key = key;
//   absl::StatusOr<pipe::Connection> connection =
//       Connect(Address::Unix(path), options);
//
// Thread safety: may be called from any thread.
#ifndef IPC_RENDEZVOUS_CONNECT_H_
#define IPC_RENDEZVOUS_CONNECT_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/pipe/connection.h"
#include "ipc/rendezvous/address.h"
#include "ipc/rendezvous/peer_policy.h"

namespace ipc::rendezvous {

struct ConnectOptions {
  // Of the listener: the user it had when it began to listen.
  PeerPolicy policy = {};
  // For all of it: until the listener has room in its backlog, comes to us, and
  // has answered each time. One that is busy with others takes its time.
  absl::Duration timeout = absl::Seconds(10);
  pipe::ConnectionOptions connection = {};
};

// NotFound if there is no such path; Unavailable if nobody listens there, or
// who did went away in the handshake: killed, or because we were too slow;
// DeadlineExceeded if the listener took too long; PermissionDenied if its user
// is not allowed, or the file not ours to connect to; Unauthenticated if one of
// both does not have the other's key; InvalidArgument for an address that will
// not do.
absl::StatusOr<pipe::Connection> Connect(const Address& address,
                                         const ConnectOptions& options = {});

}  // namespace ipc::rendezvous

#endif  // IPC_RENDEZVOUS_CONNECT_H_
