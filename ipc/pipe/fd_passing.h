// Hands file descriptors to another process over a unix socket, as Python's
// multiprocessing.reduction.sendfds and recvfds do: one byte, their number
// modulo 256, with an SCM_RIGHTS control message of int32. See unix(7) and
// cmsg(3).
//
// Thread safety: functions of their arguments.
#ifndef IPC_PIPE_FD_PASSING_H_
#define IPC_PIPE_FD_PASSING_H_

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ipc/base/deadline.h"
#include "ipc/base/unique_fd.h"
#include "ipc/pipe/stream_io.h"

namespace ipc::pipe {

// The most at a time (SCM_MAX_FD of the kernel).
inline constexpr size_t kMaxFds = 253;

// Sends copies of 1 to kMaxFds descriptors, all or none. DeadlineExceeded if
// there was no room; Unavailable if nobody can receive them; ResourceExhausted
// if too many are under way already (RLIMIT_NOFILE); FailedPrecondition if one
// of them is not open.
absl::Status SendFdsOn(const Stream& stream, absl::Span<const int> fds,
                       Deadline deadline);

// What came next in the stream.
struct ReceivedFds {
  std::vector<UniqueFd> fds;  // close-on-exec; none if a byte came without
  std::byte byte{};
};

// Receives one byte and at most `max` descriptors, of at most kMaxFds.
// OutOfRange at the end of the stream; ResourceExhausted if more came than
// `max`, or than this process may open: then all are closed; DataLoss if their
// number is not what the byte says.
absl::StatusOr<ReceivedFds> ReceiveFdsOn(const Stream& stream, size_t max,
                                         Deadline deadline);

}  // namespace ipc::pipe

#endif  // IPC_PIPE_FD_PASSING_H_
