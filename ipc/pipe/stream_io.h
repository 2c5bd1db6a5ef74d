// Reads and writes of a pipe or a stream socket under a deadline, without
// SIGPIPE, and without O_NONBLOCK.
//
// O_NONBLOCK would be the easy way, but it belongs to the open file
// description, which other processes share: a Python peer that inherited the
// other descriptor of the same end would suddenly get EAGAIN. So each call asks
// for what it needs:
//
//   sockets  recv, send and sendmsg with MSG_DONTWAIT and MSG_NOSIGNAL;
//   pipes    preadv2 and pwritev2 with RWF_NOWAIT (Linux 6.5) and RWF_NOSIGNAL
//            (Linux 6.18); read where it may wait.
//
// Where a flag is missing, the first EOPNOTSUPP tells: on an older kernel, and
// for RWF_NOWAIT also on a FIFO, which is any pipe that was opened by a name,
// be it /proc/self/fd/3. So what is missing is known for each stream, not for
// all. Without RWF_NOWAIT a pipe is only read or written after poll said that
// it is ready, at most PIPE_BUF bytes at a time when writing, which one free
// page of the pipe always holds. That never blocks as long as nobody else reads
// (or writes) this very end of the pipe; if somebody does and is faster, a call
// can outlast its deadline. Without RWF_NOSIGNAL, SIGPIPE is blocked around the
// write, which costs two more system calls.
//
// Thread safety: functions of their arguments.
#ifndef IPC_PIPE_STREAM_IO_H_
#define IPC_PIPE_STREAM_IO_H_

#include <errno.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "ipc/base/deadline.h"

namespace ipc::pipe {

enum class StreamKind { kPipe, kSocket };

struct Stream {
  int fd = -1;  // not owned
  StreamKind kind = StreamKind::kPipe;
  // The RWF_ flags that this pipe was found to lack: zero at first, and kept by
  // the caller from call to call, for each thread its own. Needed to read and
  // to write.
  int* missing_flags = nullptr;
};

// Waits until `stream` has something for `events` (POLLIN or POLLOUT): data or
// room, the end or an error. False if the deadline passed first, which it never
// does before one look, so a deadline of now asks without waiting.
absl::StatusOr<bool> WaitReady(const Stream& stream, short events,
                               Deadline deadline);

// Reads what there is, at most bytes.size(), as soon as there is something.
// Returns 0 only at the end of the stream. DeadlineExceeded if nothing came.
absl::StatusOr<size_t> ReadSome(const Stream& stream,
                                absl::Span<std::byte> bytes, Deadline deadline);

// The same of a unix socket that has SO_PASSCRED. `*sender` is the process that
// sent these bytes, which are all of one, and 0 if that is not known.
absl::StatusOr<size_t> ReadSomeFrom(const Stream& stream,
                                    absl::Span<std::byte> bytes,
                                    Deadline deadline, pid_t* sender);

// One call of ReadSome without a deadline, which is mostly all it takes, and
// without what is around it: where two processes share a CPU, each begins with
// cold caches. As read(2): 0 at the end of the stream, -1 and errno.
ssize_t TryRead(const Stream& stream, absl::Span<std::byte> bytes);

// Whether ReadSome or WriteSome may get further after that errno of TryRead or
// TryWrite. All others are to be told: a socket tells an error once.
inline bool MayGetFurther(int error) {
  return error == EINTR || error == EAGAIN || error == EWOULDBLOCK ||
         error == EOPNOTSUPP || error == ENOSYS;
}

// The kernel writes up to PIPE_BUF bytes to a pipe in one piece, all or
// nothing, if they come in so many parts at most.
inline constexpr size_t kPartsInOnePiece = 16;

// Writes `parts` one after the other by one system call, as much of them as
// fits, as soon as something does; returns how many bytes. They must not all be
// empty; of more than IOV_MAX the first are taken. DeadlineExceeded if nothing
// was written, Unavailable if nobody can read it any more.
absl::StatusOr<size_t> WriteSome(const Stream& stream,
                                 absl::Span<const iovec> parts,
                                 Deadline deadline);

// The same for WriteSome. 0 if it cannot be done in this way.
ssize_t TryWrite(const Stream& stream, absl::Span<const std::byte> bytes);

// Writes all of `parts`, which it uses up. `*written` is how many bytes of them
// it wrote, with an error as well.
absl::Status WriteAll(const Stream& stream, absl::Span<iovec> parts,
                      Deadline deadline, size_t* written);

// Asks the kernel to hold `bytes` that were sent on this pipe or unix socket
// and not received; it may give less. TCP finds its own size, and is left
// alone.
void SetBuffer(const Stream& stream, size_t bytes);

// `bytes` as a part to write.
inline iovec PartOf(absl::Span<const std::byte> bytes) {
  return {.iov_base = const_cast<std::byte*>(bytes.data()),
          .iov_len = bytes.size()};
}

}  // namespace ipc::pipe

#endif  // IPC_PIPE_STREAM_IO_H_
