// A Listener waits at an Address for those who Connect, looks at who they are,
// and gives a Connection to each: what multiprocessing.connection.Listener is
// in Python, whose Client can connect to it.
//
// Example:
//
//   ListenerOptions options;
//   options.policy.auth_key = key;
//   auto listener = Listener::Listen(Address::Unix(path), options);
//   if (!listener.ok()) return listener.status();
//   while (true) {
//     absl::StatusOr<pipe::Connection> client = listener->Accept();
//     if (client.ok()) {
//       Serve(*std::move(client));
//     } else if (Listener::IsAboutAClient(client.status())) {
//       Log(client.status());             // and go on
//     } else {
//       return client.status();
//     }
//   }
//
// Guarantees
// - Nobody is read from before his user was found to be allowed, and nobody
//   gets a Connection before he has shown that he has the key, if there is one.
// - A client that does nothing, or slowly, keeps nobody else waiting: many
//   shake hands at the same time, each until its own deadline.
// - At a unix path nobody ever meets a socket that nobody listens on, but after
//   the listener was killed; then the next one removes it. It knows by a lock,
//   not by trying (see socket_file.h), so two never listen at one path. The
//   files PATH, PATH.lock and PATH.new are removed when it is destroyed.
//
// Status codes of Accept
//   DeadlineExceeded   nobody came, or got through, in time
//   PermissionDenied   a client of a user that is not allowed; it was dropped
//   Unauthenticated    a client without the key, or that took too long for the
//                      handshake, or went away in it; it was dropped
//   ResourceExhausted  no room for another open file; the client still waits
//   FailedPrecondition the listener was moved from
//
// Thread safety: for one thread at a time. Fork: parent and child may not both
// Accept, as they would share the handshakes that are under way. The one that
// does not may destroy its copy. Only the process that called Listen removes
// the files.
#ifndef IPC_RENDEZVOUS_LISTENER_H_
#define IPC_RENDEZVOUS_LISTENER_H_

#include <sys/types.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/waitable.h"
#include "ipc/pipe/connection.h"
#include "ipc/rendezvous/address.h"
#include "ipc/rendezvous/peer_policy.h"

namespace ipc::rendezvous {

struct ListenerOptions {
  PeerPolicy policy = {};
  // From when a client has connected until it is accepted or dropped.
  absl::Duration handshake_timeout = absl::Seconds(5);
  // How many may shake hands at a time; others wait in the backlog.
  size_t max_handshakes = 64;
  // How many the kernel lets wait for Accept; see listen(2).
  int backlog = 128;
  // Of the file of a unix socket. To write to it is to connect.
  mode_t mode = 0600;
  pipe::ConnectionOptions connection = {};
};

class Listener final : public Waitable {
 public:
  // AlreadyExists if somebody listens there, or something else is there;
  // InvalidArgument if the address, or the policy for it, will not do.
  static absl::StatusOr<Listener> Listen(const Address& address,
                                         const ListenerOptions& options = {});
  // Takes over a stream socket that listens already, such as one that was
  // granted; nothing is removed at the end. Makes it non-blocking, for all who
  // share it.
  static absl::StatusOr<Listener> FromFd(UniqueFd fd,
                                         const ListenerOptions& options = {});

  Listener(Listener&&) noexcept;
  Listener& operator=(Listener&&) = delete;
  // Those who are not accepted yet find that nobody is there.
  ~Listener() override;

  absl::StatusOr<pipe::Connection> Accept(
      absl::Duration timeout = absl::InfiniteDuration());
  // Whether Accept failed because of one client, so that there is no reason to
  // stop.
  static bool IsAboutAClient(const absl::Status& status) {
    return absl::IsPermissionDenied(status) || absl::IsUnauthenticated(status);
  }

  // Where it listens: with the port or the name that the kernel has found.
  const Address& address() const;

  // Becomes readable when there is something for Accept to do, which may not be
  // enough yet for a Connection: call it with a time-out of zero.
  int poll_fd() const override;

 private:
  class Impl;
  explicit Listener(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ipc::rendezvous

#endif  // IPC_RENDEZVOUS_LISTENER_H_
