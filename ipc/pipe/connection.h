// A Connection carries messages, whole and in order, over a pipe or a stream
// socket, in the frame format of Python's multiprocessing.connection (see
// ipc/pipe/frame.h), so that either side can be a Python process.
//
// Example:
//
//   auto ends = Connection::CreatePair(/*duplex=*/true);
//   if (!ends.ok()) return ends.status();
//   auto& [parent, child] = *ends;
//   ... start a process that inherits child.fd(), then child.Close();
//   absl::Status sent = parent.Send("hello", absl::Seconds(1));
//   while (true) {
//     absl::StatusOr<std::string> message = parent.Receive();
//     if (absl::IsOutOfRange(message.status())) break;  // the child has closed
//     if (!message.ok()) return message.status();
//     Handle(*message);
//   }
//
// and in the child, which was told the number of its descriptor:
//
//   absl::StatusOr<Connection> connection = Connection::FromFd(UniqueFd(3));
//
// or, if the child is Python: multiprocessing.connection.Connection(3).
//
// Guarantees
// - A message arrives whole or not at all. A peer that dies inside one shows as
//   DataLoss, never as a shorter message or as a clean end: at once if nobody
//   else holds the sending end, for the kernel then ends the stream; while
//   somebody does, only with Options::watch_sender, or after
//   Options::frame_timeout. Without either a Receive waits for the rest for as
//   long as the end is held, by a child that inherited it or by the receiver.
//   Between two messages the kernel has nothing to tell while anybody could
//   send the next one.
// - A Send that returns OK has handed the whole message to the kernel. Nobody
//   knows whether the peer read it: that takes an answer.
// - A peer that has gone is an error of Send (Unavailable), never a SIGPIPE,
//   whatever the program does about that signal.
// - Receive reads the bytes of one message and no more (but see read_ahead), so
//   several processes may take turns on the same end, and a descriptor can be
//   handed on between messages. At the same time they may not: one would get
//   the header and another the payload. Several senders at the same time may
//   share the end of a pipe (not of a socket) if their messages and headers fit
//   into PIPE_BUF (4096 bytes), which is what the kernel writes in one piece.
// - Time-outs do not depend on O_NONBLOCK. The flag is left as it was found:
//   the peers of an inherited descriptor share it. ipc/pipe/stream_io.h tells
//   what is done instead, and what an old kernel lacks.
// - Memory for a message grows as it arrives, not by what its header claims.
//
// Status codes
//   DeadlineExceeded   the time-out has passed. The next Receive goes on where
//                      this one was. A Send that timed out has either written
//                      nothing, and may be repeated, or, as its message says, a
//                      part: then nothing can be sent any more.
//   OutOfRange         Receive: the peer has closed, between two messages.
//   DataLoss           Receive: the peer closed or died inside a message, or
//                      took longer than Options::frame_timeout; or what it sent
//                      is not a frame.
//   Unavailable        Send: nobody can receive any more. Receive: the peer
//                      closed a socket and left messages of ours unread.
//   ResourceExhausted  a message exceeds Options::max_message_bytes, or the
//                      memory that there is.
//   InvalidArgument    ReceiveInto: the buffer is too small (the message is
//                      kept); FromFd: not a pipe or a stream socket.
//   PermissionDenied   the wrong end: Send on the receiving end of a pipe, or
//                      the other way round.
//   FailedPrecondition the connection is closed or moved from; or an earlier
//                      error, which the message names, has cost the frame
//                      boundaries: close the connection and open a new one.
//
// Thread safety: one thread may receive (Receive, ReceiveInto, Poll) while
// another sends (Send, ShutdownSend); two of the same kind at once, or any
// other member that is not const, need a lock.
//
// Fork: both processes then hold the same end. Close it in the one that does
// not use it, or the peer will not see the end of the stream. Every descriptor
// here is close-on-exec.
#ifndef IPC_PIPE_CONNECTION_H_
#define IPC_PIPE_CONNECTION_H_

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "ipc/base/deadline.h"
#include "ipc/base/unique_fd.h"
#include "ipc/base/waitable.h"
#include "ipc/pipe/frame.h"
#include "ipc/pipe/stream_io.h"

namespace ipc::pipe {

struct ConnectionOptions {
  // The largest message, in bytes, that Send takes and Receive accepts. Bounds
  // the memory that a peer can make us use; but a larger frame costs the
  // connection, so agree on it with the peer. Python has no such limit.
  size_t max_message_bytes = size_t{64} << 20;

  // Takes what comes next along with a message, up to kBatchBytes, so that a
  // small message costs one system call instead of two, and those behind it
  // none. It takes away two things: nobody else can go on receiving from this
  // end, nor can descriptors be received; and poll_fd() does not show what has
  // been taken along. WaitAny knows of it; who waits by epoll receives until
  // DeadlineExceeded before waiting again.
  bool read_ahead = false;

  // How many bytes of what was sent the kernel may hold until the peer receives
  // them. Zero: its default, which is 64 KiB for a pipe and 208 KiB for a unix
  // socket, and once a larger message is sent, enough for that, up to 256 KiB
  // and 1 MiB. A pipe of 1 MiB is faster still for messages of that size, but
  // all pipes of a user share pipe-user-pages-soft, 64 MiB. Gives less, without
  // a word, where the system allows no more: /proc/sys/fs/pipe-max-size and
  // pipe-user-pages-soft of pipe(7), /proc/sys/net/core/wmem_max of socket(7).
  size_t buffer_bytes = 0;

  // How long the rest of a message may take, from when a Receive had to wait
  // for it; several Receives that time out share it. A message that takes
  // longer is DataLoss, and costs the connection. It says nothing about the
  // sender, which may be slow, stopped or dead: take it where no peer may hold
  // you up.
  absl::Duration frame_timeout = absl::InfiniteDuration();

  // Has Receive tell within kWatchTick, by DataLoss, that the sender of a
  // message that is here in part has died, though others, or this process, hold
  // the same end open. The kernel proves it; a sender that is stopped or slow
  // is waited for. It costs the connection.
  // - Unix socket: to be set by the receiver; the sender may be anybody, Python
  //   too. The kernel then tells with each part which process sent it
  //   (SO_PASSCRED of unix(7)), as it does to all who share this receiving end:
  //   Python's recv_handle is confused by it. If two processes mixed their
  //   bytes in one message, that is DataLoss, too. Unnoticed go who is in a PID
  //   namespace that we do not see, and who died so long before we came to wait
  //   that another process has got its number: until that has exited.
  // - Pipe, FIFO: to be set by all who send and by the receiver, so not where
  //   Python sends: one without it that pauses inside a message would be taken
  //   for dead. A sender holds a file lock while it sends more than PIPE_BUF
  //   bytes, which costs three system calls and needs /proc; less than that
  //   arrives whole or not at all anyway. A child that another thread of the
  //   sender forks meanwhile keeps the lock.
  // - TCP: no effect.
  bool watch_sender = false;
};

// Who connected, listened or made the pair, as the kernel saw it then.
struct PeerCredentials {
  pid_t pid = -1;  // 0 if it is in no pid namespace that we see
  uid_t uid = 0;
  gid_t gid = 0;
};

class Connection final : public Waitable {
 public:
  using Options = ConnectionOptions;

  // Two connected ends. Duplex: a pair of unix stream sockets, each sends and
  // receives. Otherwise a pipe: the first receives, the second sends.
  static absl::StatusOr<std::pair<Connection, Connection>> CreatePair(
      bool duplex = true, const Options& options = {});

  // Takes over an end that somebody else made: a pipe, a FIFO or a connected
  // stream socket of any family; directions are those it was opened for. Sets
  // close-on-exec, which is the descriptor's own, and changes nothing that
  // other processes would see. On error `fd` is closed. A FIFO opened for
  // reading and writing is taken, but keeps itself alive: neither the end of
  // the stream nor a peer that has gone will ever show.
  static absl::StatusOr<Connection> FromFd(UniqueFd fd,
                                           const Options& options = {});

  Connection(Connection&& other) noexcept = default;
  Connection& operator=(Connection&& other) noexcept = default;
  // Closes. Never blocks; what was sent stays readable for the peer.
  ~Connection() override = default;

  // Sends one message, possibly empty. While the kernel's buffer is full, waits
  // for the peer to receive. A `timeout` of zero or less tries once. Without
  // one a large message may go by two system calls, where that is faster.
  absl::Status Send(absl::string_view message,
                    absl::Duration timeout = absl::InfiniteDuration());
  absl::Status Send(absl::Span<const std::byte> message,
                    absl::Duration timeout = absl::InfiniteDuration());
  // Without flattening a large one: header and chunks, if there is more than
  // one, go in one writev, as long as there are fewer than IOV_MAX (1024) and
  // the kernel has room.
  absl::Status Send(const absl::Cord& message,
                    absl::Duration timeout = absl::InfiniteDuration());
  // Sends many messages in as few system calls as the kernel's buffer allows,
  // and returns how many were sent: fewer than all if the time-out passed
  // between two of them. Errors as Send, if none was sent; an error inside a
  // message tells how many went before it. A message that is too large is found
  // before any is sent. The kernel's buffer does not grow with a batch as it
  // does with a large message: set buffer_bytes.
  absl::StatusOr<size_t> SendBatch(
      absl::Span<const absl::string_view> messages,
      absl::Duration timeout = absl::InfiniteDuration());

  // Receives one message. A `timeout` of zero or less takes what is there.
  absl::StatusOr<std::string> Receive(
      absl::Duration timeout = absl::InfiniteDuration());
  // The same as a Cord, which can be passed on in parts without a copy. A large
  // message is received into chunks of up to 1 MiB, so it needs no memory
  // twice.
  absl::StatusOr<absl::Cord> ReceiveCord(
      absl::Duration timeout = absl::InfiniteDuration());
  // Waits for one message and takes those that are there behind it, as many as
  // one system call gets (up to kBatchBytes). It may get the beginning of
  // another one, so only the same Connection can go on receiving; and it loses
  // descriptors that were sent behind a message, and with them the frame
  // boundaries: no SendFds may be among what it takes.
  absl::StatusOr<std::vector<std::string>> ReceiveBatch(
      absl::Duration timeout = absl::InfiniteDuration());
  static constexpr size_t kBatchBytes = size_t{64} << 10;
  // How often who waits for the rest of a message looks at its sender, with
  // Options::watch_sender.
  static constexpr absl::Duration kWatchTick = absl::Milliseconds(10);
  // Receives one message into `buffer` and returns its size. If it does not
  // fit, InvalidArgument tells the size, and the next call gets the same
  // message. After an error the content of `buffer` is unspecified, but nothing
  // is lost.
  absl::StatusOr<size_t> ReceiveInto(
      absl::Span<std::byte> buffer,
      absl::Duration timeout = absl::InfiniteDuration());

  // Hands copies of descriptors to the peer of a unix socket, 1 to 253 of them,
  // all or none, between messages, as Python's reduction.send_handle does. The
  // peer has to call ReceiveFds, or recv_handle, at this point of the stream: a
  // Receive would drop them and lose the frame boundaries.
  absl::Status SendFds(absl::Span<const int> fds,
                       absl::Duration timeout = absl::InfiniteDuration());
  // Receives what one SendFds sent, at most `max` of them, close-on-exec.
  // ResourceExhausted if there are more, or no room in our table of open files:
  // all are closed then. FailedPrecondition if a message comes first, which is
  // kept: Receive it; or if the connection reads ahead. DataLoss if the control
  // message makes no sense.
  absl::StatusOr<std::vector<UniqueFd>> ReceiveFds(
      size_t max, absl::Duration timeout = absl::InfiniteDuration());

  // The other end's process, for a unix socket (SO_PEERCRED of unix(7)): the
  // one that called connect, listen or socketpair, whoever holds the end now.
  // FailedPrecondition for anything else.
  absl::StatusOr<PeerCredentials> peer() const;

  // Waits for something to receive: at least the beginning of a message, or the
  // end of the stream. False if there was nothing before the time-out.
  absl::StatusOr<bool> Poll(absl::Duration timeout = absl::ZeroDuration());

  // Ends our direction: the peer receives what was sent and then a clean end,
  // and can still send. For sockets; it acts on the socket, so also for other
  // processes that hold it. FailedPrecondition on a pipe, which has no other
  // direction to keep open: Close it.
  absl::Status ShutdownSend();

  // Closes the descriptor. May be repeated. Never blocks.
  void Close();

  // Gives the descriptor away, to be used between messages by somebody else.
  // FailedPrecondition, and the connection stays as it is, if a part of a
  // message has been received or sent, or anything was read ahead.
  absl::StatusOr<UniqueFd> Release();

  // The descriptor, which stays owned, or -1 when closed.
  int fd() const { return fd_.get(); }
  bool readable() const { return readable_; }
  bool writable() const { return writable_; }

  // Waitable: becomes readable when Poll would be true. -1 when closed.
  int poll_fd() const override { return fd_.get(); }
  bool is_ready() const override { return fd_.ok() && !ahead_.empty(); }

 private:
  // Where nothing is copied slowly from the kernel, nor to where malloc has
  // large blocks begin: see ipc/base/copy.h.
  struct alignas(4096) Buffer {
    std::byte before[2048];
    std::byte bytes[kBatchBytes];
  };

  Connection(UniqueFd fd, StreamKind kind, bool readable, bool writable,
             const Options& options);

  Stream stream() const { return {.fd = fd_.get(), .kind = kind_}; }
  Stream receiving() {
    return {.fd = fd_.get(),
            .kind = kind_,
            .missing_flags = &missing_for_receiving_};
  }
  Stream sending() {
    return {
        .fd = fd_.get(), .kind = kind_, .missing_flags = &missing_for_sending_};
  }
  std::string Name() const;
  absl::Status CheckUnixSocket(absl::string_view operation) const;
  absl::Status TooLarge(size_t bytes) const;
  // Has the kernel hold a message of so many bytes, if it may.
  void Grow(size_t bytes);
  // Whether no watcher can see only some of what is written: there is none, or
  // a socket tells whose it is, or a pipe takes so much in one piece.
  bool IsOnePiece(size_t bytes, size_t parts) const;
  // Send, of what is not copied behind its header as a whole.
  absl::Status SendLarge(absl::Span<const std::byte> message,
                         absl::Duration timeout);
  // Writes the parts of frames, as WriteAll, so that a watcher sees us do it:
  // the first ones by a call, or calls, of their own.
  absl::Status WriteFrames(absl::Span<iovec> parts, size_t total,
                           size_t first_parts, Deadline deadline,
                           size_t* written);
  // The same for one frame, `before` bytes of which are written.
  absl::Status SendFrame(absl::Span<iovec> parts, absl::Duration timeout,
                         size_t first_parts, size_t before = 0);
  // `status` has ended a frame after `written` of its `total` bytes.
  absl::Status SendError(const absl::Status& status, size_t written,
                         size_t total);
  bool CanReceive() const { return fd_.ok() && readable_; }
  absl::Status ReceiveRefusal() const;  // why it cannot
  bool CanSend() const {
    return fd_.ok() && writable_ && !is_shut_ && send_status_.ok();
  }
  absl::Status SendRefusal() const;
  // Reads until the decoder knows the size of the message, or has all of it.
  absl::Status ReadHeader(Deadline deadline);
  absl::Status ReadFrame(Deadline deadline);
  absl::Status ReadOnce(Deadline deadline);
  // What was read ahead, or else what there is.
  absl::StatusOr<size_t> Read(absl::Span<std::byte> bytes, Deadline deadline);
  // What there is, of a message that is not read ahead.
  absl::StatusOr<size_t> ReadStraight(absl::Span<std::byte> bytes,
                                      Deadline deadline);
  // What there is.
  absl::StatusOr<size_t> ReadFromKernel(absl::Span<std::byte> bytes,
                                        Deadline deadline);
  // The same inside a frame, whose sender is watched or whose time is limited.
  absl::StatusOr<size_t> ReadRest(absl::Span<std::byte> bytes,
                                  Deadline deadline);
  // The same once, noting who sent it if that can be.
  absl::StatusOr<size_t> ReadNoting(absl::Span<std::byte> bytes,
                                    Deadline deadline, pid_t* sender);
  // Nobody is going to send the rest of the frame that is here in part.
  bool IsSenderGone() const;
  // Has `buffer_` be there. False if there is no memory.
  bool MakeBuffer();
  // Reads by one call what comes next to `ahead_`, at most so many bytes, or
  // what came instead to `early_`.
  bool TryReadAhead(size_t bytes);
  // Fills `ahead_`, which is empty; it stays so at the end of the stream.
  absl::Status ReadAhead(Deadline deadline);
  // ReadAhead if it is to be done before a message. The error of the end of the
  // stream at that.
  absl::Status Prefetch(Deadline deadline);
  // The next message, of at most `max_bytes`, as it is mostly got: by a call or
  // two, or none, and with little around them, for where two processes share a
  // CPU each begins with cold caches. If it is not, what came instead is in
  // `ahead_` and `early_`, for those who take the long way.
  std::optional<absl::Span<const std::byte>> TakeNext(size_t max_bytes,
                                                      absl::Duration timeout);
  // The next message, of at most `max_bytes`, if all of it was read ahead.
  std::optional<absl::Span<const std::byte>> TakeAhead(size_t max_bytes);
  // The payload, of which nothing was read yet, into chunks of `message`.
  absl::Status ReadChunks(absl::Cord& message, Deadline deadline);
  // The rest of a message straight into `buffer`, of its exact size.
  absl::Status ReadPayload(absl::Span<std::byte> buffer, Deadline deadline);
  // What a failed read means at this point of the stream.
  absl::Status ReceiveError(const absl::Status& status) const;

  UniqueFd fd_;
  StreamKind kind_;
  bool readable_;
  bool writable_;
  size_t max_message_bytes_;
  bool watch_sender_;
  // Of the receiving thread.
  int missing_for_receiving_ = 0;
  FrameDecoder decoder_;
  absl::Duration frame_timeout_;
  // Of the frame under way, once it was waited for.
  std::optional<Deadline> frame_deadline_;
  pid_t sender_pid_ = 0;  // of what was read last, if it is known
  bool read_ahead_;
  // As the last one was: not to be read ahead.
  bool expects_large_ = false;
  bool takes_next_;  // if it can: see TakeNext
  // What TakeNext got instead of bytes: 0 for the end, -errno; 1: nothing.
  int early_ = 1;
  std::unique_ptr<Buffer> buffer_;          // once it is needed
  absl::Span<const std::byte> ahead_ = {};  // of it: read, and not decoded
  // Of the sending thread.
  int missing_for_sending_ = 0;
  size_t buffer_bytes_;       // what the kernel holds, or is not asked for more
  bool is_shut_ = false;      // by ShutdownSend
  absl::Status send_status_;  // what Send returns from now on, if not OK
};

}  // namespace ipc::pipe

#endif  // IPC_PIPE_CONNECTION_H_
