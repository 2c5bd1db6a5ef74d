// What a ForkServer and its server say to each other, over a pair of
// SOCK_SEQPACKET sockets that only these two hold. Both are copies of one
// program, or built from one source: there is no version.
//
//   greeting  ForkRequest                        + fd: the client's pidfd
//   request   ForkRequest | name | argument      + fds: report, granted...
//   answer    ForkAnswer  | message              + fd: pidfd, if OK
//   disown    ForkRequest                        without fds
//
// The greeting is in the socket before there is a server: by the pidfd it knows
// for certain, in whatever pid namespace, when its client has ended.
//
// One answer to each request, in order. `report` is the writing end of a pipe,
// into which the server writes an ExitReport (see process.h) once it has reaped
// the child. If nobody has its reading end any more when the request's turn
// comes, the client has given up and nothing is started.
//
// A client that has given up meanwhile kills the child by its pidfd. One that
// could not receive the pidfd disowns the child: the server, which alone knows
// whether that pid is its child still, kills it. There is no answer. A client
// that is about to close its end shuts it for reading first: an answer that the
// server cannot send any more is a child that it kills, and whose answer was
// sent before is killed by the client.
#ifndef IPC_PROCESS_FORK_PROTOCOL_H_
#define IPC_PROCESS_FORK_PROTOCOL_H_

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"

namespace ipc::process {

struct ForkRequest {
  uint64_t number;  // counts up from 1, the answer repeats it; of a disowned
                    // child: pid
  uint32_t name_bytes;
  uint32_t fd_count;  // with the report; 0: disown
};
static_assert(sizeof(ForkRequest) == 16);

struct ForkAnswer {
  uint64_t number;
  int32_t code;  // absl::StatusCode
  int32_t pid;   // if OK
};
static_assert(sizeof(ForkAnswer) == 16);

// SCM_MAX_FD of Linux, less the report.
inline constexpr size_t kMaxForkFds = 252;
// Name and argument. A packet must fit into the socket's buffer as a whole.
inline constexpr size_t kMaxForkBytes = size_t{64} << 10;
inline constexpr size_t kMaxForkMessageBytes = 1024;

// A packet of `bytes` and of `fds`, at most kMaxForkFds and the report, as by
// sendmsg(2) with `flags`; without SIGPIPE, and again after a signal.
ssize_t SendForkPacket(int control, absl::Span<iovec> bytes,
                       absl::Span<const int> fds, int flags);

}  // namespace ipc::process

#endif  // IPC_PROCESS_FORK_PROTOCOL_H_
