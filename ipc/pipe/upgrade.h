// From a Connection to a ring: once two processes have found each other and
// accepted each other, the messages of one direction go through shared memory.
//
// Example: frames from a camera to its viewer, who has connected.
//
//   // The camera.
//   auto frames = UpgradeToSender(connection, {.capacity_bytes = 1 << 26});
//   ... frames->Reserve(size) ... Commit()
//
//   // The viewer.
//   auto frames = UpgradeToReceiver(connection);
//   ... frames->Receive()
//
// The Connection goes on as before, for messages of both directions, for
// another ring, and to learn by WaitAny, which a ring has no descriptor for,
// that the peer has died or closed. Each of both has to call its function at
// the same point of the stream, as with SendFds, which this is; so the
// receiver's Connection must not have Options::read_ahead, and no ReceiveBatch
// may take what was sent before.
//
// What was sent by the Connection before is received by it; between messages of
// both there is no order.
//
// Thread safety and status codes: as Connection's SendFds and ReceiveFds, and
// RingSender's and RingReceiver's FromFd.
#ifndef IPC_PIPE_UPGRADE_H_
#define IPC_PIPE_UPGRADE_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ipc/pipe/connection.h"
#include "ipc/pipe/ring.h"

namespace ipc::pipe {

// Makes a ring, hands it to the peer, which is to be its receiver, and is its
// sender. It may send at once; whether the peer took the ring shows when it is
// full. FailedPrecondition unless the Connection is over a unix socket.
absl::StatusOr<RingSender> UpgradeToSender(
    Connection& connection, const RingOptions& options = {},
    absl::Duration timeout = absl::InfiniteDuration());

// Takes the ring that the peer's UpgradeToSender hands over, and is its
// receiver. The peer chose its size, up to 4 GiB, and the memory is the peer's:
// what RingReceiver says of trust holds.
absl::StatusOr<RingReceiver> UpgradeToReceiver(
    Connection& connection, absl::Duration timeout = absl::InfiniteDuration());

}  // namespace ipc::pipe

#endif  // IPC_PIPE_UPGRADE_H_
