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
// - A client that does nothing, or slowly, keeps nobody else out, nor do any
//   number of them: many shake hands at the same time, each until its own
//   deadline, and when there are max_handshakes of them and more wait, those go
//   that have used their crowded_timeout: first of the user who has most of
//   them (by TCP nobody's user is known), of those first who has not shown the
//   key, and of those who came first. So each of the others waits for his turn,
//   and who then answers within crowded_timeout gets in.
// - What a client has sent in time is not too late because the program, serving
//   others, did not call Accept.
// - At a unix path nobody ever meets a socket that nobody listens on, but after
//   the listener was killed; then the next one removes it. It knows by a lock,
//   not by trying (see socket_file.h), so two never listen at one path. The
//   files PATH, PATH.lock and PATH.new are removed when it is destroyed.
// - When its process has died, whatever children it has forked, clients find
//   that nobody is there, and the next one can listen.
//
// Status codes of Accept
//   DeadlineExceeded   nobody came, or got through, in time
//   PermissionDenied   a client of a user that is not allowed; it was dropped
//   Unauthenticated    a client without the key, or that took too long for the
//                      handshake, or went away in it; it was dropped
//   ResourceExhausted  no room for another open file; the client still waits
//   FailedPrecondition the listener was moved from, or is a parent's
//
// Thread safety: for one thread at a time.
//
// Fork: a Listener belongs to the process that made it, with the handshakes
// that are under way. In a forked child (of fork(2), which tells; not of a raw
// clone(2)) the socket, the lock and the clients' are closed already, Accept
// fails, and to destroy it has no effect; so who wants to run in the background
// forks first. A Connection that was accepted is inherited as any other.
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
  // What a client may take for each of its messages in the handshake, three in
  // all, the first one from when it is taken from the backlog. Accept notices
  // when it is called, and drops nobody whose message is there by then.
  absl::Duration handshake_timeout = absl::Seconds(5);
  // How many may shake hands at a time; at least one. Others wait in the
  // backlog, and with 64 and 100 ms, at most 640 a second get a place of those
  // who make no use of it.
  size_t max_handshakes = 64;
  // What each of them is sure to have for a message even if others wait.
  absl::Duration crowded_timeout = absl::Milliseconds(100);
  // How many the kernel lets wait for Accept; see listen(2).
  int backlog = 128;
  // Of the file of a unix socket, whatever the umask. To write to it is to
  // connect.
  mode_t mode = 0600;
  pipe::ConnectionOptions connection = {};
};

class Listener final : public Waitable {
 public:
  // AlreadyExists if somebody listens there, or something else is there;
  // InvalidArgument if the address, or the policy for it, will not do.
  static absl::StatusOr<Listener> Listen(const Address& address,
                                         const ListenerOptions& options = {});
  // Takes over a stream socket, a unix or TCP one, that listens already, such
  // as one that was granted; nothing is removed at the end. Makes it
  // non-blocking, for all who share it.
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

  // Where it listens: with the port or the name that the kernel has found. A
  // path of no bytes if it was moved from.
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
